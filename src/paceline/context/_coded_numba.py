"""Attention of a few tokens to a cache in few bits, as compiled loops: imported only where numba is installed.

Codes become numbers block by block, in scratch that stays near the processor: memory is read for the codes alone. Lows
and steps never meet them:

    q k' = (q * step) codes + q low        by channel, for keys
    w v' = (w * step) codes + w low        by token, for values
"""

import numba
import numpy as np

from paceline.core.compiled import compiled
from paceline.core.step_numba import BLOCK, add_weighted, dots, exponentials, join, put

ONE, ZERO = np.float32(1.0), np.float32(0.0)


def _as_numbers(codes, bits, out):  # type: ignore[no-untyped-def]
    """`out` (n, s) of the codes of n vectors, in a byte each, or two: the first half of a vector in the lower bits."""
    if bits == 4:
        half = codes.shape[1]
        for j in range(len(codes)):
            code, low, high = codes[j], out[j, :half], out[j, half:]  # loops would not see that halves lie apart
            for c in range(half):
                low[c] = np.float32(np.int32(code[c] & 15))
            for c in range(half):
                high[c] = np.float32(np.int32(code[c] >> 4))
    else:
        flat, to = codes.reshape(-1), out.reshape(-1)
        for c in range(len(flat)):
            to[c] = np.float32(np.int32(flat[c]))


as_numbers = compiled(_as_numbers, parallel=False)


def _coded(  # type: ignore[no-untyped-def]
    mixed, tokens, heads, keys, values, k_codes, k_low, k_step, v_codes, v_low, v_step, coded, held, group, bits, order,
    splits, scores, sums, tops, parts, block, scaled, out
):  # fmt: skip
    """As `attend` of `held` tokens, of which the first `coded` are codes (g, m, s bits / 8) and the others, the
    queries' own the last, are in `keys` and `values` (g, m, s). Ranges of keys are (g, m / group, s), of values
    (g, m, 1).

    `block` (pieces, BLOCK, s) and `scaled` (pieces, s) are scratch.
    """
    groups, _, width = keys.shape
    share, past = heads // groups, held - tokens
    scale = ONE / np.sqrt(np.float32(width))
    span = (held + splits - 1) // splits
    put(mixed, tokens, heads, past - coded, keys, values)
    for piece in numba.prange(groups * splits):
        g = piece // splits
        start = (piece - g * splits) * span
        end = min(start + span, held)
        asked, near = scaled[piece], block[piece]
        begin = start
        while begin < end:
            stop = min(begin + BLOCK, end)
            if begin < coded:
                at = begin // group
                stop = min(stop, (at + 1) * group)
                as_numbers(k_codes[g, begin:stop], bits, near)
            for i in range(tokens):
                for r in range(share):
                    first = (g * share + r) * width
                    query, to = mixed[i, first : first + width], scores[piece, i, r, begin - start :]
                    if begin >= coded:
                        own = order[begin - coded : min(stop, past + i + 1) - coded]
                        dots(query, keys[g], own, scale, to)
                    else:
                        low, step, rest = k_low[g, at], k_step[g, at], ZERO
                        for c in range(width):
                            asked[c] = query[c] * step[c]
                        for c in range(width):
                            rest += query[c] * low[c]
                        dots(asked, near, order[: stop - begin], scale, to)
                        for j in range(stop - begin):
                            to[j] += rest * scale
            begin = stop
        for i in range(tokens):
            seen = max(0, min(end, past + i + 1) - start)
            for r in range(share):
                tops[piece, i, r], sums[piece, i, r] = exponentials(scores[piece, i, r, :seen])
                parts[piece, i, r] = ZERO
        begin = start
        while begin < end:
            stop = min(begin + BLOCK, end)
            if begin < coded:
                stop = min(stop, coded)
                as_numbers(v_codes[g, begin:stop], bits, near)
            for i in range(tokens):
                for r in range(share):
                    weights, to = scores[piece, i, r, begin - start :], parts[piece, i, r]
                    if begin >= coded:
                        own = order[begin - coded : min(stop, past + i + 1) - coded]
                        add_weighted(weights, values[g], own, to)
                    else:
                        rest = ZERO
                        for j in range(stop - begin):
                            rest += weights[j] * v_low[g, begin + j, 0]
                        for j in range(stop - begin):
                            weights[j] *= v_step[g, begin + j, 0]
                        add_weighted(weights, near, order[: stop - begin], to)
                        for c in range(width):
                            to[c] += rest
            begin = stop
    for i in range(tokens):
        join(tops, sums, parts, i, groups, splits, out[i])


coded = compiled(_coded)
__all__ = ["coded"]
