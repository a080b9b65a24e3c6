"""Attention of one token to chosen tokens of a cache, as compiled loops: imported only where numba is installed.

q (h, s), keys and values (g, m, s) with room for m tokens, of which the first are held. Called one by one, the
operations of such a step cost more than what it leaves unread.
"""

import numba
import numpy as np

from paceline.core.compiled import compiled
from paceline.core.step_numba import add_weighted, dots, exponentials

ONE = np.float32(1.0)
TINY, TOP = np.finfo(np.float32).tiny, np.float32(15)
BLOCK = 64


def _best(scores, count, chosen):  # type: ignore[no-untyped-def]
    """The places of the `count` largest, ascending; of equals the first."""
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = 0
    for j in range(len(scores)):
        above += scores[j] > least
    level, n = count - above, 0
    for j in range(len(scores)):
        if scores[j] > least or (scores[j] == least and level > 0):
            level -= scores[j] == least
            chosen[n] = j
            n += 1


best = compiled(_best, parallel=False)


def _read(q, k, v, tokens, weights, out):  # type: ignore[no-untyped-def]
    """softmax(q K' / sqrt(s)) V of one query (s,) over these rows of k and v (m, s)."""
    dots(q, k, tokens, ONE / np.sqrt(np.float32(len(q))), weights)
    _, total = exponentials(weights[: len(tokens)])
    out[:] = np.float32(0)
    add_weighted(weights, v, tokens, out)
    for c in range(len(q)):
        out[c] /= total


read = compiled(_read, parallel=False)


def _pages(  # type: ignore[no-untyped-def]
    q, keys, values, bounds, held, page, count, together, scores, chosen, tokens, weights, out
):
    """Each head's pages of the highest bound, as many as `count` with the last one, and what it reads there.

    `bounds` (g, p, 2 s) has the least and the largest key of each page by channel. `together`: heads that share keys
    choose by the sum of their bounds. `scores` (h, p), `chosen` (h, count), `tokens` and `weights` (h, count page) are
    scratch, p the pages before the last.
    """
    heads, width = q.shape
    share, last = heads // len(keys), (held - 1) // page
    for h in numba.prange(heads):
        group = bounds[h // share]
        for p in range(last):
            total = np.float32(0)
            for c in range(width):
                total += max(q[h, c] * group[p, c], q[h, c] * group[p, width + c])
            scores[h, p] = total
    for h in range(0, heads if together else 0, share):
        for r in range(1, share):
            scores[h] += scores[h + r]
        for r in range(1, share):
            scores[h + r] = scores[h]
    for h in numba.prange(heads):
        some = min(count - 1, last)
        if some:
            best(scores[h], some, chosen[h])
        n = 0
        for i in range(some + 1):
            first = (chosen[h, i] if i < some else last) * page
            for j in range(first, min(first + page, held)):
                tokens[h, n] = j
                n += 1
        read(q[h], keys[h // share], values[h // share], tokens[h, :n], weights[h], out[h])


def _products(q, keys, low, high, raw):  # type: ignore[no-untyped-def]
    """`raw` (g, r, n), what the queries q (g, r, s) score on the keys from `low` to `high`.

    r has the heads of each key head, padded to fours: each key is read for four at once.
    """
    groups, rows, width = q.shape
    n = high - low
    blocks = (n + BLOCK - 1) // BLOCK
    for piece in numba.prange(groups * blocks):
        g, start = piece // blocks, piece % blocks * BLOCK
        for r in range(0, rows, 4):
            q0, q1, q2, q3 = q[g, r], q[g, r + 1], q[g, r + 2], q[g, r + 3]
            for j in range(start, min(start + BLOCK, n)):
                key = keys[g, low + j]
                a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                for i in range(width):
                    x = key[i]
                    a += q0[i] * x
                    b += q1[i] * x
                    c += q2[i] * x
                    d += q3[i] * x
                raw[g, r, j], raw[g, r + 1, j], raw[g, r + 2, j], raw[g, r + 3, j] = a, b, c, d


def _code_products(q, codes, low, high, raw):  # type: ignore[no-untyped-def]
    """The same on codes of 4 bits (g, m, s / 2), the first half of a key in the lower ones."""
    groups, rows, width = q.shape
    n, half = high - low, width // 2
    blocks = (n + BLOCK - 1) // BLOCK
    for piece in numba.prange(groups * blocks):
        g, start = piece // blocks, piece % blocks * BLOCK
        for r in range(0, rows, 4):
            q0, q1, q2, q3 = q[g, r], q[g, r + 1], q[g, r + 2], q[g, r + 3]
            for j in range(start, min(start + BLOCK, n)):
                code = codes[g, low + j]
                a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
                for i in range(half):
                    x, y = np.float32(np.int32(code[i] & 15)), np.float32(np.int32(code[i] >> 4))
                    a += q0[i] * x + q0[i + half] * y
                    b += q1[i] * x + q1[i + half] * y
                    c += q2[i] * x + q2[i + half] * y
                    d += q3[i] * x + q3[i + half] * y
                raw[g, r, j], raw[g, r + 1, j], raw[g, r + 2, j], raw[g, r + 3, j] = a, b, c, d


def _total(raw, share, votes):  # type: ignore[no-untyped-def]
    """`votes` (n,), the sum of the softmax of the first `share` rows of each key head's scores `raw` (g, r, n)."""
    groups, _, n = raw.shape
    for h in numba.prange(groups * share):
        row = raw[h // share, h % share]
        _, total = exponentials(row)
        for j in range(n):
            row[j] /= total
    votes[:] = np.float32(0)
    for g in range(groups):
        for r in range(share):
            for j in range(n):
                votes[j] += raw[g, r, j]


def _read_all(q, keys, values, tokens, weights, out):  # type: ignore[no-untyped-def]
    """What all heads read of the same tokens."""
    share = len(q) // len(keys)
    for h in numba.prange(len(q)):
        read(q[h], keys[h // share], values[h // share], tokens, weights[h], out[h])


def _alike(one, other):  # type: ignore[no-untyped-def]
    """The cosine of the angle between two vectors."""
    product, a, b = np.float32(0), np.float32(0), np.float32(0)
    for i in range(len(one)):
        product += one[i] * other[i]
        a += one[i] * one[i]
        b += other[i] * other[i]
    return product / (np.sqrt(a) * np.sqrt(b))


def _encode(keys, low, step, at, codes):  # type: ignore[no-untyped-def]
    """The token `at` of `codes`, as `quantised.encode` writes it."""
    half = keys.shape[2] // 2
    for g in range(len(keys)):
        for i in range(half):
            byte = 0
            for c, shift in ((i, 0), (i + half, 4)):
                code = np.rint((keys[g, at, c] - low[g, c]) / max(step[g, c], TINY))
                byte |= int(min(max(code, np.float32(0)), TOP)) << shift
            codes[g, at, i] = byte


def _select(  # type: ignore[no-untyped-def]
    q, keys, values, codes, low, step, held, sinks, local, threshold, last, chosen, voter, voted, raw, sums, out
):
    """A step of `tokenselect.py`, the newest token being in `keys` and `values` alone; whether it voted.

    `last` is the query that voted last, or empty, and `chosen` for what; `voter` and `voted` become what they are after
    this step. `codes` (g, m, s / 2) has room for the newest token too, or no tokens at all where votes read the keys.
    `raw` (g, r, n) and `sums` (n,) are scratch, r the heads of a key head in whole fours and n the tokens voted on.
    """
    heads, width = q.shape
    groups, high = len(keys), held - local
    share, count = heads // groups, len(voted)
    coded = codes.shape[1] > 0
    if coded:
        encode(keys, low, step, held - 1, codes)
    flat = q.reshape(-1)
    votes = len(last) == 0 or alike(flat, last) < threshold
    if votes:
        grouped = np.zeros((groups, raw.shape[1], width), np.float32)
        for h in range(heads):
            for c in range(width):
                scale = step[h // share, c] if coded else ONE
                grouped[h // share, h % share, c] = q[h, c] * scale
        if coded:
            code_products(grouped, codes, sinks, high, raw)
        else:
            products(grouped, keys, sinks, high, raw)
        total(raw, share, sums)
        best(sums, count, voted)
        voted += sinks
        voter[:] = flat
    else:
        voted[:] = chosen
        voter[:] = last
    tokens = np.empty(sinks + count + local, np.int64)
    tokens[:sinks] = np.arange(sinks)
    tokens[sinks : sinks + count] = voted
    tokens[sinks + count :] = np.arange(high, held)
    read_all(q, keys, values, tokens, np.empty((heads, len(tokens)), np.float32), out)
    return votes


products, code_products, total = compiled(_products), compiled(_code_products), compiled(_total)
alike, encode = compiled(_alike, parallel=False), compiled(_encode, parallel=False)
pages, read_all = compiled(_pages), compiled(_read_all)
select = compiled(_select)
__all__ = ["pages", "select"]
