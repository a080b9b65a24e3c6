"""A few tokens through products and layers of Llama's kind, as compiled loops: imported only where numba is installed.

    product            y = (x W') * scales, W float32, or 8 bits with a scale an output
    before attention   q, k, v = turned(rms_norm(x) W_qkv')
    attention          softmax(q K' / sqrt(s)) V over the whole cache
    after it           y = x + heads W_o';  y + (silu(g) * u) W_down'  with g, u = rms_norm(y) W_gate_up'

Decoding reads every weight for a token or a few, so a product is as fast as memory is read, and a step of one token is
thirty layers of tiny operations around a few products: called one by one they cost as much as the reading does. Tokens
come one alone, or in fours, padded: each weight is then read for four at once. The cache is cut along its length into
pieces that threads read side by side, joined by their largest scores, as in FlashAttention's decoding (Dao et al.
2023). All loops stand in one file, for numba keeps a compiled loop while its own file is unchanged, whatever it calls.
"""

import numba
import numpy as np

from paceline.core.compiled import compiled, use_threads


def _product(x, weights, scales, out):  # type: ignore[no-untyped-def]
    """`out` (r, o) of x (r, i) and weights (o, i), r one or a multiple of four.

    A thread goes through four rows of weights side by side, far from one another (two where there are four rows of x):
    memory gives more to a core that reads four streams than to one that reads a single one, and each number of x is
    fetched once for all. Where they do not divide, a row is done twice.
    """
    outputs, last = weights.shape[0], weights.shape[0] - 1
    if x.shape[0] == 1:
        step = (outputs + 3) // 4
        for o in numba.prange(step):
            p, q, s = min(o + step, last), min(o + 2 * step, last), min(o + 3 * step, last)
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(weights.shape[1]):
                a += x[0, i] * np.float32(weights[o, i])
                b += x[0, i] * np.float32(weights[p, i])
                c += x[0, i] * np.float32(weights[q, i])
                d += x[0, i] * np.float32(weights[s, i])
            out[0, o], out[0, p], out[0, q], out[0, s] = a * scales[o], b * scales[p], c * scales[q], d * scales[s]
    else:
        step = (outputs + 1) // 2
        for o in numba.prange(step):
            p = min(o + step, last)
            for r in range(0, x.shape[0], 4):
                a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                e, f, g, h = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                for i in range(weights.shape[1]):
                    v, w = np.float32(weights[o, i]), np.float32(weights[p, i])
                    a += x[r, i] * v
                    b += x[r + 1, i] * v
                    c += x[r + 2, i] * v
                    d += x[r + 3, i] * v
                    e += x[r, i] * w
                    f += x[r + 1, i] * w
                    g += x[r + 2, i] * w
                    h += x[r + 3, i] * w
                out[r, o], out[r + 1, o] = a * scales[o], b * scales[o]
                out[r + 2, o], out[r + 3, o] = c * scales[o], d * scales[o]
                out[r, p], out[r + 1, p] = e * scales[p], f * scales[p]
                out[r + 2, p], out[r + 3, p] = g * scales[p], h * scales[p]


product = compiled(_product)


def _normalise(x, norm, eps, out):  # type: ignore[no-untyped-def]
    for r in range(x.shape[0]):
        total = np.float32(0)
        for i in range(x.shape[1]):
            total += x[r, i] * x[r, i]
        share = np.float32(1) / np.sqrt(total / np.float32(x.shape[1]) + np.float32(eps))
        for i in range(x.shape[1]):
            out[r, i] = x[r, i] * share * norm[i]


normalise = compiled(_normalise, parallel=False)


def _before(x, norm, eps, weights, scales, cos, sin, turned, normed, out):  # type: ignore[no-untyped-def]
    """The first `turned` heads of `out` (r, o) are turned by their positions; of padding there are none."""
    normalise(x, norm, eps, normed)
    product(normed, weights, scales, out)
    width = cos.shape[1]
    half = width // 2
    for r in range(cos.shape[0]):
        for head in range(turned):
            for i in range(head * width, head * width + half):
                at = i - head * width
                a, b = out[r, i], out[r, i + half]
                out[r, i] = a * cos[r, at] - b * sin[r, at]
                out[r, i + half] = b * cos[r, at + half] + a * sin[r, at + half]


def _silu(both, out):  # type: ignore[no-untyped-def]
    """`out` (r, h) of gates and of what they let through, side by side in `both` (r, 2h)."""
    hidden = out.shape[1]
    for i in numba.prange(hidden):
        for r in range(out.shape[0]):
            gate = both[r, i]
            out[r, i] = gate / (np.float32(1) + np.exp(-gate)) * both[r, i + hidden]


silu = compiled(_silu)


def _after(  # type: ignore[no-untyped-def]
    x, heads, w_o, s_o, norm, eps, w_up, s_up, w_down, s_down, normed, both, middle, out
):
    product(heads, w_o, s_o, out)
    for r in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[r, i] += x[r, i]
    normalise(out, norm, eps, normed)
    product(normed, w_up, s_up, both)
    silu(both, middle)
    product(middle, w_down, s_down, normed)
    for r in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[r, i] += normed[r, i]


def _attend(mixed, tokens, heads, held, keys, values, splits, scores, sums, tops, parts, out):  # type: ignore[no-untyped-def]
    """`tokens` queries, first in each row of `mixed`; the keys and values after them are the last of `held` ones.

    A query sees the keys before it and its own. `keys` (g, m, s) has room for m >= held: it is contiguous, unlike its
    front, of which loops would not know that neighbours are neighbours.
    """
    groups, _, width = keys.shape
    share, past = heads // groups, held - tokens
    scale = np.float32(1) / np.sqrt(np.float32(width))
    span = (held + splits - 1) // splits
    for i in range(tokens):
        for g in range(groups):
            for c in range(width):
                keys[g, past + i, c] = mixed[i, (heads + g) * width + c]
                values[g, past + i, c] = mixed[i, (heads + groups + g) * width + c]
    for piece in numba.prange(groups * splits):
        g = piece // splits
        start = (piece - g * splits) * span
        end = min(start + span, held)
        for i in range(tokens):
            seen = max(start, min(end, past + i + 1))
            k, v = keys[g, start:seen], values[g, start:seen]
            for r in range(share):
                at = (g * share + r) * width
                q, score, part = mixed[i, at : at + width], scores[piece, i, r], parts[piece, i, r]
                top, total = np.float32(-np.inf), np.float32(0)
                for j in range(len(k)):
                    product = np.float32(0)
                    for c in range(width):
                        product += q[c] * k[j, c]
                    score[j] = product * scale
                    top = max(top, score[j])
                for c in range(width):
                    part[c] = np.float32(0)
                for j in range(len(v)):
                    weight = np.exp(score[j] - top)
                    total += weight
                    for c in range(width):
                        part[c] += weight * v[j, c]
                tops[piece, i, r], sums[piece, i, r] = top, total
    for i in range(tokens):
        for g in range(groups):
            for r in range(share):
                top, total, at = np.float32(-np.inf), np.float32(0), (g * share + r) * width
                for piece in range(g * splits, (g + 1) * splits):
                    top = max(top, tops[piece, i, r])
                for c in range(width):
                    out[i, at + c] = np.float32(0)
                for piece in range(g * splits, (g + 1) * splits):
                    if tops[piece, i, r] > -np.inf:
                        factor = np.exp(tops[piece, i, r] - top)
                        total += factor * sums[piece, i, r]
                        for c in range(width):
                            out[i, at + c] += factor * parts[piece, i, r, c]
                for c in range(width):
                    out[i, at + c] /= total


attend = compiled(_attend)
before, after = compiled(_before, parallel=False), compiled(_after, parallel=False)


def _stack(  # type: ignore[no-untyped-def]
    x, tokens, heads, w_qkv, s_qkv, w_o, s_o, w_up, s_up, w_down, s_down, norm_in, norm_mid, eps, cos, sin, turned,
    held, keys, values, splits, normed, mixed, read, both, middle, out, scores, sums, tops, parts
):  # fmt: skip
    """All layers: `x` (t, d) in and out; rows beyond `tokens` are padding."""
    for i in range(len(w_qkv)):
        before(x, norm_in[i], eps, w_qkv[i], s_qkv[i], cos, sin, turned, normed, mixed)
        attend(mixed, tokens, heads, held, keys[i], values[i], splits, scores, sums, tops, parts, read)
        after(
            x, read, w_o[i], s_o[i], norm_mid[i], eps, w_up[i], s_up[i], w_down[i], s_down[i], normed, both, middle, out
        )
        x[:] = out


stack = compiled(_stack, parallel=False)
__all__ = ["after", "before", "product", "stack", "use_threads"]
