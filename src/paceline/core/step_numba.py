"""A few tokens through products and layers of Llama's kind, as compiled loops: imported only where numba is installed.

    product            y = (x W') * scales, W float32, or 8 bits with a scale an output
    before attention   q, k, v = turned(rms_norm(x) W_qkv')
    attention          softmax(q K' / sqrt(s)) V over the whole cache
    after it           y = x + heads W_o';  y + (silu(g) * u) W_down'  with g, u = rms_norm(y) W_gate_up'

Decoding reads every weight for a token or a few, so a product is as fast as memory is read, and a step of one token is
thirty layers of tiny operations around a few products: called one by one they cost as much as the reading does. Tokens
come one alone, or in fours, padded: each weight is then read for four at once. The cache is cut along its length into
pieces that threads read side by side, joined by their largest scores, as in FlashAttention's decoding (Dao et al.
2023).
"""

from inspect import unwrap

import numba
import numpy as np

from paceline.core.compiled import compiled, use_threads

LOG2_E = np.float32(np.log2(np.e))
C1, C2, C3, C4, C5, C6 = (np.float32(np.log(2) ** i / np.prod(np.arange(1, i + 1))) for i in range(1, 7))
LEAST, HALF, ONE = np.float32(-126.0), np.float32(0.5), np.float32(1.0)
BIAS, MANTISSA = np.int32(127), np.int32(23)
BLOCK = 64
"""Tokens of a cache that all heads which share them read while they are near."""
PIECE = 256
"""Gates that are worth a thread's turn."""


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


def _finish(x, norm, eps, weights, scales, normed, out):  # type: ignore[no-untyped-def]
    """`out` (r, v): the logits."""
    normalise(x, norm, eps, normed)
    product(normed, weights, scales, out)


def _exponential(x):  # type: ignore[no-untyped-def]
    """e^x for x <= 0: the power of the nearest whole number, written into the exponent's bits, times a polynomial of
    the rest. A call of the library's would keep the loop from taking several numbers at once."""
    y = max(x * LOG2_E, LEAST)
    whole = np.floor(y + HALF)
    r = y - whole
    rest = (((((C6 * r + C5) * r + C4) * r + C3) * r + C2) * r + C1) * r + ONE
    return rest * np.int32((np.int32(whole) + BIAS) << MANTISSA).view(np.float32)


exponential = numba.njit(inline="always")(unwrap(_exponential))


def _silu(both, out):  # type: ignore[no-untyped-def]
    """`out` (r, h) of gates and of what they let through, side by side in `both` (r, 2h)."""
    rows, hidden = out.shape
    for piece in numba.prange(-(-hidden // PIECE)):
        for r in range(rows):
            for i in range(piece * PIECE, min(piece * PIECE + PIECE, hidden)):
                gate = both[r, i]
                small = exponential(-abs(gate))
                out[r, i] = gate * (ONE if gate > 0 else small) / (ONE + small) * both[r, i + hidden]


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


def _dots(q, rows, tokens, scale, out):  # type: ignore[no-untyped-def]
    """`out` (n,), the scaled products of q (s,) with these of the rows (m, s), four at a time."""
    fours = len(tokens) // 4 * 4
    for i in range(0, fours, 4):
        k, m, n, o = rows[tokens[i]], rows[tokens[i + 1]], rows[tokens[i + 2]], rows[tokens[i + 3]]
        a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for x in range(len(q)):
            a += q[x] * k[x]
            b += q[x] * m[x]
            c += q[x] * n[x]
            d += q[x] * o[x]
        out[i], out[i + 1], out[i + 2], out[i + 3] = a * scale, b * scale, c * scale, d * scale
    for i in range(fours, len(tokens)):
        k, a = rows[tokens[i]], np.float32(0)
        for x in range(len(q)):
            a += q[x] * k[x]
        out[i] = a * scale


def _exponentials(scores):  # type: ignore[no-untyped-def]
    """e^(score - largest) in place; the largest and the sum."""
    top, total = np.float32(-np.inf), np.float32(0)
    for j in range(len(scores)):
        top = max(top, scores[j])
    for j in range(len(scores)):
        scores[j] = exponential(scores[j] - top)
    for j in range(len(scores)):
        total += scores[j]
    return top, total


def _add_weighted(weights, rows, tokens, out):  # type: ignore[no-untyped-def]
    """To `out` (s,) the weighted sum of these of the rows (m, s), four at a time."""
    fours = len(tokens) // 4 * 4
    for i in range(0, fours, 4):
        k, m, n, o = rows[tokens[i]], rows[tokens[i + 1]], rows[tokens[i + 2]], rows[tokens[i + 3]]
        a, b, c, d = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for x in range(len(out)):
            out[x] += a * k[x] + b * m[x] + c * n[x] + d * o[x]
    for i in range(fours, len(tokens)):
        k, a = rows[tokens[i]], weights[i]
        for x in range(len(out)):
            out[x] += a * k[x]


dots, exponentials, add_weighted = (compiled(f, parallel=False) for f in (_dots, _exponentials, _add_weighted))


def _join(tops, sums, parts, row, groups, splits, out):  # type: ignore[no-untyped-def]
    """`out` (h s,): what each head has read in its `splits` pieces, whose largest scores are `tops` (p, rows, r).

    Of each piece `sums` has the sum of e^(score - its largest) and `parts` (p, rows, r, s) that of the values by it.
    """
    share, width = parts.shape[2:]
    for g in range(groups):
        for r in range(share):
            top, total, at = np.float32(-np.inf), np.float32(0), (g * share + r) * width
            for piece in range(g * splits, (g + 1) * splits):
                top = max(top, tops[piece, row, r])
            for c in range(width):
                out[at + c] = np.float32(0)
            for piece in range(g * splits, (g + 1) * splits):
                if tops[piece, row, r] > -np.inf:
                    factor = np.exp(tops[piece, row, r] - top)
                    total += factor * sums[piece, row, r]
                    for c in range(width):
                        out[at + c] += factor * parts[piece, row, r, c]
            for c in range(width):
                out[at + c] /= total


join = compiled(_join, parallel=False)


def _put(mixed, tokens, heads, at, keys, values):  # type: ignore[no-untyped-def]
    """The tokens' own keys and values, from the token `at` on of `keys` and `values` (g, m, s)."""
    groups, _, width = keys.shape
    for i in range(tokens):
        for g in range(groups):
            for c in range(width):
                keys[g, at + i, c] = mixed[i, (heads + g) * width + c]
                values[g, at + i, c] = mixed[i, (heads + groups + g) * width + c]


put = compiled(_put, parallel=False)


def _attend(mixed, tokens, heads, held, keys, values, order, splits, scores, sums, tops, parts, out):  # type: ignore[no-untyped-def]
    """`tokens` queries, first in each row of `mixed`; the keys and values after them are the last of `held` ones.

    A query sees the keys before it and its own. `keys` (g, m, s) has room for m >= held: it is contiguous, unlike its
    front, of which loops would not know that neighbours are neighbours. `order` counts up to `held`.
    """
    groups, _, width = keys.shape
    share, past = heads // groups, held - tokens
    scale = np.float32(1) / np.sqrt(np.float32(width))
    span = (held + splits - 1) // splits
    put(mixed, tokens, heads, past, keys, values)
    for piece in numba.prange(groups * splits):
        g = piece // splits
        start = (piece - g * splits) * span
        end = min(start + span, held)
        for begin in range(start, end, BLOCK):
            for i in range(tokens):
                near = order[begin : min(begin + BLOCK, end, past + i + 1)]
                for r in range(share):
                    at = (g * share + r) * width
                    dots(mixed[i, at : at + width], keys[g], near, scale, scores[piece, i, r, begin - start :])
        for i in range(tokens):
            seen = max(0, min(end, past + i + 1) - start)
            for r in range(share):
                tops[piece, i, r], sums[piece, i, r] = exponentials(scores[piece, i, r, :seen])
                parts[piece, i, r] = np.float32(0)
        for begin in range(start, end, BLOCK):
            for i in range(tokens):
                near = order[begin : min(begin + BLOCK, end, past + i + 1)]
                for r in range(share):
                    add_weighted(scores[piece, i, r, begin - start :], values[g], near, parts[piece, i, r])
    for i in range(tokens):
        join(tops, sums, parts, i, groups, splits, out[i])


def _attend_rows(mixed, heads, held, keys, values, order, seen, scores, sums, parts, out):  # type: ignore[no-untyped-def]
    """A query of each of several sequences, whose own keys and values are the last of the `held`.

    `keys` (b, g, m, s) has room for m >= held; sequence i sees the first `seen[i]` of `order[i]`, its own the last.
    """
    rows, groups, _, width = keys.shape
    share = heads // groups
    scale = np.float32(1) / np.sqrt(np.float32(width))
    for piece in numba.prange(rows * groups):
        i = piece // groups
        g = piece - i * groups
        first = g * share * width
        for c in range(width):
            keys[i, g, held - 1, c] = mixed[i, (heads + g) * width + c]
            values[i, g, held - 1, c] = mixed[i, (heads + groups + g) * width + c]
        for begin in range(0, seen[i], BLOCK):
            near = order[i, begin : min(begin + BLOCK, seen[i])]
            for r in range(share):
                at = first + r * width
                dots(mixed[i, at : at + width], keys[i, g], near, scale, scores[piece, r, begin:])
        for r in range(share):
            _, sums[piece, r] = exponentials(scores[piece, r, : seen[i]])
            parts[piece, r] = np.float32(0)
        for begin in range(0, seen[i], BLOCK):
            near = order[i, begin : min(begin + BLOCK, seen[i])]
            for r in range(share):
                add_weighted(scores[piece, r, begin:], values[i, g], near, parts[piece, r])
        for r in range(share):
            for c in range(width):
                out[i, first + r * width + c] = parts[piece, r, c] / sums[piece, r]


attend, attend_rows = compiled(_attend), compiled(_attend_rows)
before, after, finish = (compiled(f, parallel=False) for f in (_before, _after, _finish))
__all__ = [
    "add_weighted", "after", "attend", "attend_rows", "before", "dots", "exponentials", "finish", "join", "product",
    "put", "use_threads",
]  # fmt: skip
