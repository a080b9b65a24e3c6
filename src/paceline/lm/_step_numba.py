"""A few tokens through layers of Llama's kind, as compiled loops: imported only where numba is installed.

    before attention   q, k, v = turned(rms_norm(x) W_qkv')
    attention          softmax(q K' / sqrt(s)) V over the whole cache
    after it           y = x + heads W_o';  y + (silu(g) * u) W_down'  with g, u = rms_norm(y) W_gate_up'

A step of one token is thirty such layers of tiny operations around a few products; called one by one they cost as much
as reading the weights does. Tokens come one alone, or in fours, padded: each weight is then read for four at once.
Weights are float32, or 8 bits with a scale an output (`compress/_rows_numba.py`). The cache is cut along its length
into pieces that threads read side by side, joined by their largest scores, as in FlashAttention's decoding (Dao et al.
2023). All loops stand in one file, for numba keeps a compiled loop while its own file is unchanged, whatever it calls.
"""

import numba
import numpy as np

from paceline.core.compiled import compiled, use_threads


def _normalise(x, norm, eps, out):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(x.shape[0]):
        total += x[i] * x[i]
    share = np.float32(1) / np.sqrt(total / np.float32(x.shape[0]) + np.float32(eps))
    for i in range(x.shape[0]):
        out[i] = x[i] * share * norm[i]


normalise = compiled(_normalise, parallel=False)


def _before(x, norm, eps, weights, scales, cos, sin, turned, normed, out):  # type: ignore[no-untyped-def]
    """The first `turned` heads of `out` (o,) are turned by their position."""
    normalise(x, norm, eps, normed)
    for o in numba.prange(weights.shape[0]):
        total = np.float32(0)
        for i in range(weights.shape[1]):
            total += normed[i] * np.float32(weights[o, i])
        out[o] = total * scales[o]
    width = cos.shape[0]
    half = width // 2
    for head in range(turned):
        for i in range(head * width, head * width + half):
            at = i - head * width
            a, b = out[i], out[i + half]
            out[i] = a * cos[at] - b * sin[at]
            out[i + half] = b * cos[at + half] + a * sin[at + half]


def _after(  # type: ignore[no-untyped-def]
    x, heads, w_o, s_o, norm, eps, w_up, s_up, w_down, s_down, normed, middle, out
):
    for o in numba.prange(w_o.shape[0]):
        total = np.float32(0)
        for i in range(w_o.shape[1]):
            total += heads[i] * np.float32(w_o[o, i])
        out[o] = x[o] + total * s_o[o]
    normalise(out, norm, eps, normed)
    hidden = middle.shape[0]
    for o in numba.prange(hidden):
        gate, up = np.float32(0), np.float32(0)
        for i in range(w_up.shape[1]):
            gate += normed[i] * np.float32(w_up[o, i])
            up += normed[i] * np.float32(w_up[o + hidden, i])
        gate, up = gate * s_up[o], up * s_up[o + hidden]
        middle[o] = gate / (np.float32(1) + np.exp(-gate)) * up
    for o in numba.prange(w_down.shape[0]):
        total = np.float32(0)
        for i in range(w_down.shape[1]):
            total += middle[i] * np.float32(w_down[o, i])
        out[o] += total * s_down[o]


def _before_rows(x, norm, eps, weights, scales, cos, sin, turned, normed, out):  # type: ignore[no-untyped-def]
    for r in range(x.shape[0]):
        normalise(x[r], norm, eps, normed[r])
    for o in numba.prange(weights.shape[0]):
        for r in range(0, x.shape[0], 4):
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(weights.shape[1]):
                w = np.float32(weights[o, i])
                a += normed[r, i] * w
                b += normed[r + 1, i] * w
                c += normed[r + 2, i] * w
                d += normed[r + 3, i] * w
            out[r, o], out[r + 1, o] = a * scales[o], b * scales[o]
            out[r + 2, o], out[r + 3, o] = c * scales[o], d * scales[o]
    width = cos.shape[1]
    half = width // 2
    for r in range(cos.shape[0]):
        for head in range(turned):
            for i in range(head * width, head * width + half):
                at = i - head * width
                a, b = out[r, i], out[r, i + half]
                out[r, i] = a * cos[r, at] - b * sin[r, at]
                out[r, i + half] = b * cos[r, at + half] + a * sin[r, at + half]


def _after_rows(  # type: ignore[no-untyped-def]
    x, heads, w_o, s_o, norm, eps, w_up, s_up, w_down, s_down, normed, middle, out
):
    for o in numba.prange(w_o.shape[0]):
        for r in range(0, x.shape[0], 4):
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(w_o.shape[1]):
                w = np.float32(w_o[o, i])
                a += heads[r, i] * w
                b += heads[r + 1, i] * w
                c += heads[r + 2, i] * w
                d += heads[r + 3, i] * w
            out[r, o], out[r + 1, o] = x[r, o] + a * s_o[o], x[r + 1, o] + b * s_o[o]
            out[r + 2, o], out[r + 3, o] = x[r + 2, o] + c * s_o[o], x[r + 3, o] + d * s_o[o]
    for r in range(x.shape[0]):
        normalise(out[r], norm, eps, normed[r])
    hidden = middle.shape[1]
    for o in numba.prange(hidden):
        for r in range(0, x.shape[0], 2):
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(w_up.shape[1]):
                gate, up = np.float32(w_up[o, i]), np.float32(w_up[o + hidden, i])
                a += normed[r, i] * gate
                b += normed[r + 1, i] * gate
                c += normed[r, i] * up
                d += normed[r + 1, i] * up
            a, b, c, d = a * s_up[o], b * s_up[o], c * s_up[o + hidden], d * s_up[o + hidden]
            middle[r, o] = a / (np.float32(1) + np.exp(-a)) * c
            middle[r + 1, o] = b / (np.float32(1) + np.exp(-b)) * d
    for o in numba.prange(w_down.shape[0]):
        for r in range(0, x.shape[0], 4):
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(w_down.shape[1]):
                w = np.float32(w_down[o, i])
                a += middle[r, i] * w
                b += middle[r + 1, i] * w
                c += middle[r + 2, i] * w
                d += middle[r + 3, i] * w
            out[r, o] += a * s_down[o]
            out[r + 1, o] += b * s_down[o]
            out[r + 2, o] += c * s_down[o]
            out[r + 3, o] += d * s_down[o]


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
before, after = compiled(_before), compiled(_after)
before_rows, after_rows = compiled(_before_rows), compiled(_after_rows)


def _stack(  # type: ignore[no-untyped-def]
    x, tokens, heads, w_qkv, s_qkv, w_o, s_o, w_up, s_up, w_down, s_down, norm_in, norm_mid, eps, cos, sin, turned,
    held, keys, values, splits, normed, mixed, read, middle, out, scores, sums, tops, parts
):  # fmt: skip
    """All layers: `x` (t, d) in, `out` (t, d) out; rows beyond `tokens` are padding."""
    for i in range(len(w_qkv)):
        if x.shape[0] == 1:
            before(x[0], norm_in[i], eps, w_qkv[i], s_qkv[i], cos[0], sin[0], turned, normed[0], mixed[0])
        else:
            before_rows(x, norm_in[i], eps, w_qkv[i], s_qkv[i], cos, sin, turned, normed, mixed)
        attend(mixed, tokens, heads, held, keys[i], values[i], splits, scores, sums, tops, parts, read)
        if x.shape[0] == 1:
            after(
                x[0], read[0], w_o[i], s_o[i], norm_mid[i], eps, w_up[i], s_up[i], w_down[i], s_down[i], normed[0],
                middle[0], out[0],
            )  # fmt: skip
        else:
            after_rows(
                x, read, w_o[i], s_o[i], norm_mid[i], eps, w_up[i], s_up[i], w_down[i], s_down[i], normed, middle, out
            )
        x[:] = out


stack = compiled(_stack, parallel=False)
__all__ = ["after", "after_rows", "before", "before_rows", "stack", "use_threads"]
