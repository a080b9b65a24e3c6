"""A step of decoding through all layers of a model of Llama's kind, as one compiled loop for each way to remember:
imported only where numba is installed.

The tokens' rows `x` (t, d) go in and come out; rows beyond `tokens` are padding. What a model gives and what is scratch
comes first, the same for all: `context/_steps.py: Step`. Weights and caches come as addresses, a row of `maps` or
`caches` a layer, so that a loop is compiled once for models of any depth. Called layer by layer, with Python between
the loops, a step takes a quarter longer.
"""
# mypy: disable-error-code="attr-defined,call-arg"

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from paceline.context._chosen_numba import pages, select
from paceline.context._coded_numba import coded
from paceline.core.compiled import compiled, use_threads
from paceline.core.step_numba import after, attend, attend_rows, before, put

NUMBER = np.float32
CODE = np.uint8
TOKEN = np.int64


@intrinsic
def pointer(context, address):  # type: ignore[no-untyped-def]
    """An address as what `carray` takes."""

    def code(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), code


def _enter(x, maps, weight, eps, cos, sin, turned, normed, mixed):  # type: ignore[no-untyped-def]
    """Before a layer's attention; `weight` is typed as weights are."""
    d, o = x.shape[1], mixed.shape[1]
    w, s = numba.carray(pointer(maps[0]), (o, d), weight.dtype), numba.carray(pointer(maps[1]), (o,), NUMBER)
    before(x, numba.carray(pointer(maps[8]), (d,), NUMBER), eps, w, s, cos, sin, turned, normed, mixed)


def _leave(x, read, maps, weight, eps, normed, both, middle, out):  # type: ignore[no-untyped-def]
    """After a layer's attention."""
    d, h, up, down = x.shape[1], read.shape[1], both.shape[1], middle.shape[1]
    after(
        x, read,
        numba.carray(pointer(maps[2]), (d, h), weight.dtype), numba.carray(pointer(maps[3]), (d,), NUMBER),
        numba.carray(pointer(maps[9]), (d,), NUMBER), eps,
        numba.carray(pointer(maps[4]), (up, d), weight.dtype), numba.carray(pointer(maps[5]), (up,), NUMBER),
        numba.carray(pointer(maps[6]), (d, down), weight.dtype), numba.carray(pointer(maps[7]), (d,), NUMBER),
        normed, both, middle, out,
    )  # fmt: skip
    x[:] = out


enter, leave = compiled(_enter, parallel=False), compiled(_leave, parallel=False)


def _cache(at, groups, width):  # type: ignore[no-untyped-def]
    """Keys and values (g, m, s) of a layer, from their addresses and the tokens that each has room for."""
    keys = numba.carray(pointer(at[0]), (groups, at[1], width), NUMBER)
    return keys, numba.carray(pointer(at[2]), (groups, at[3], width), NUMBER)


cache = compiled(_cache, parallel=False)


def _remember(mixed, heads, at, keys, values):  # type: ignore[no-untyped-def]
    """Keys and values of the one token as the cache's token `at`; its queries (h, s)."""
    put(mixed, 1, heads, at, keys, values)
    return mixed[0, : heads * keys.shape[2]].reshape((heads, keys.shape[2]))


remember = compiled(_remember, parallel=False)


def _range_of(keys, first, end, bounds, at):  # type: ignore[no-untyped-def]
    """The page `at` of `bounds`: the least and the largest key by channel of the tokens from `first` on."""
    groups, _, width = keys.shape
    for g in range(groups):
        for c in range(width):
            low, high = NUMBER(np.inf), NUMBER(-np.inf)
            for j in range(first, end):
                low, high = min(low, keys[g, j, c]), max(high, keys[g, j, c])
            bounds[g, at, c], bounds[g, at, width + c] = low, high


range_of = compiled(_range_of, parallel=False)


def _full(  # type: ignore[no-untyped-def]
    x, tokens, heads, groups, eps, cos, sin, maps, weight, normed, mixed, read, both, middle, out, held, caches,
    order, splits, scores, sums, tops, parts
):  # fmt: skip
    """The whole cache."""
    for i in range(len(maps)):
        enter(x, maps[i], weight, eps, cos, sin, heads + groups, normed, mixed)
        keys, values = cache(caches[i], groups, cos.shape[1])
        attend(mixed, tokens, heads, held, keys, values, order, splits, scores, sums, tops, parts, read)
        leave(x, read, maps[i], weight, eps, normed, both, middle, out)


def _rows(  # type: ignore[no-untyped-def]
    x, tokens, heads, groups, eps, cos, sin, maps, weight, normed, mixed, read, both, middle, out, held, caches,
    order, seen, scores, sums, parts
):  # fmt: skip
    """The whole cache of several sequences, for a token of each."""
    shape = (tokens, groups, caches[0, 1], cos.shape[1])
    for i in range(len(maps)):
        enter(x, maps[i], weight, eps, cos, sin, heads + groups, normed, mixed)
        keys, values = (
            numba.carray(pointer(caches[i, 0]), shape, NUMBER),
            numba.carray(pointer(caches[i, 2]), shape, NUMBER),
        )
        attend_rows(mixed, heads, held, keys, values, order, seen, scores, sums, parts, read)
        leave(x, read, maps[i], weight, eps, normed, both, middle, out)


def _heavy(  # type: ignore[no-untyped-def]
    x, tokens, heads, groups, eps, cos, sin, maps, weight, normed, mixed, read, both, middle, out, held, caches,
    order, splits, scores, sums, tops, parts, left, recent, before, after, got
):  # fmt: skip
    """`h2o.py` for one token. `before` (layers, g, held - 1) is the weight that each key has got until now, `after`
    (layers, g, m) that of those that stay. Where m < held each head drops one, and the others go to the caches
    `left`."""
    share, width = heads // groups, cos.shape[1]
    span = (held + splits - 1) // splits
    for i in range(len(maps)):
        enter(x, maps[i], weight, eps, cos, sin, heads + groups, normed, mixed)
        keys, values = cache(caches[i], groups, width)
        attend(mixed, tokens, heads, held, keys, values, order, splits, scores, sums, tops, parts, read)
        for g in range(groups):
            got[: held - 1], got[held - 1] = before[i, g], NUMBER(0)
            for r in range(share):
                first = g * splits
                top, total = NUMBER(-np.inf), NUMBER(0)
                for piece in range(first, first + splits):
                    top = max(top, tops[piece, 0, r])
                for piece in range(first, first + splits):
                    total += np.exp(tops[piece, 0, r] - top) * sums[piece, 0, r]
                for piece in range(first, first + splits):
                    factor = np.exp(tops[piece, 0, r] - top) / total
                    start = (piece - first) * span
                    for j in range(start, min(start + span, held)):
                        got[j] += factor * scores[piece, 0, r, j - start]
            stay = after.shape[2]
            dropped = stay if stay == held else np.argmin(got[: held - recent])
            after[i, g, :dropped], after[i, g, dropped:] = got[:dropped], got[dropped + 1 :]
            if stay < held:
                to_keys, to_values = cache(left[i], groups, width)
                to_keys[g, :dropped], to_keys[g, dropped:stay] = keys[g, :dropped], keys[g, dropped + 1 : held]
                to_values[g, :dropped], to_values[g, dropped:stay] = values[g, :dropped], values[g, dropped + 1 : held]
        leave(x, read, maps[i], weight, eps, normed, both, middle, out)


def _quest(  # type: ignore[no-untyped-def]
    x, tokens, heads, groups, eps, cos, sin, maps, weight, normed, mixed, read, both, middle, out, held, caches,
    order, splits, scores, sums, tops, parts, dense, page, count, together, bound, chosen, listed, weights
):  # fmt: skip
    """`quest.py` for one token; the first `dense` layers read all. A layer's row of `caches` goes on with its bounds,
    which have room for the page that becomes full."""
    width = cos.shape[1]
    for i in range(len(maps)):
        enter(x, maps[i], weight, eps, cos, sin, heads + groups, normed, mixed)
        keys, values = cache(caches[i], groups, width)
        if i < dense:
            attend(mixed, tokens, heads, held, keys, values, order, splits, scores, sums, tops, parts, read)
        else:
            q = remember(mixed, heads, held - 1, keys, values)
            bounds = numba.carray(pointer(caches[i, 4]), (groups, caches[i, 5], 2 * width), NUMBER)
            if held % page == 0:
                range_of(keys, held - page, held, bounds, held // page - 1)
            to = read[0].reshape((heads, width))
            pages(q, keys, values, bounds, held, page, count, together, bound, chosen, listed, weights, to)
        leave(x, read, maps[i], weight, eps, normed, both, middle, out)


def _tokenselect(  # type: ignore[no-untyped-def]
    x, tokens, heads, groups, eps, cos, sin, maps, weight, normed, mixed, read, both, middle, out, held, caches, sinks,
    local, threshold, asked_before, count, raw, sums, votes
):  # fmt: skip
    """`tokenselect.py` for one token; `votes` (layers,) becomes which layers voted.

    A layer's row of `caches` goes on with the query that voted last and its choice, with those of after this step, and
    with codes of 4 bits, the tokens that they have room for, what they begin at and their step.
    """
    width = cos.shape[1]
    last = heads * width if asked_before else 0
    for i in range(len(maps)):
        enter(x, maps[i], weight, eps, cos, sin, heads + groups, normed, mixed)
        keys, values = cache(caches[i], groups, width)
        q = remember(mixed, heads, held - 1, keys, values)
        at = caches[i, 4:]
        votes[i] = select(
            q, keys, values,
            numba.carray(pointer(at[4]), (groups, at[5], width // 2), CODE),
            numba.carray(pointer(at[6]), (groups, width), NUMBER),
            numba.carray(pointer(at[7]), (groups, width), NUMBER),
            held, sinks, local, threshold,
            numba.carray(pointer(at[0]), (last,), NUMBER), numba.carray(pointer(at[1]), (count,), TOKEN),
            numba.carray(pointer(at[2]), (heads * width,), NUMBER), numba.carray(pointer(at[3]), (count,), TOKEN),
            raw, sums, read[0].reshape((heads, width)),
        )  # fmt: skip
        leave(x, read, maps[i], weight, eps, normed, both, middle, out)


def _quantised(  # type: ignore[no-untyped-def]
    x, tokens, heads, groups, eps, cos, sin, maps, weight, normed, mixed, read, both, middle, out, held, caches,
    order, splits, scores, sums, tops, parts, group, bits, few, block, scaled
):  # fmt: skip
    """`quantised.py`; the first `few` of the `held` are codes. A layer's row of `caches` goes on with
    those of keys, low and step of their ranges, and the same of values."""
    width = cos.shape[1]
    for i in range(len(maps)):
        enter(x, maps[i], weight, eps, cos, sin, heads + groups, normed, mixed)
        keys, values = cache(caches[i], groups, width)
        at = caches[i, 4:]
        coded(
            mixed, tokens, heads, keys, values,
            numba.carray(pointer(at[0]), (groups, at[1], width * bits // 8), CODE),
            numba.carray(pointer(at[2]), (groups, at[3], width), NUMBER),
            numba.carray(pointer(at[4]), (groups, at[5], width), NUMBER),
            numba.carray(pointer(at[6]), (groups, at[7], width * bits // 8), CODE),
            numba.carray(pointer(at[8]), (groups, at[9], 1), NUMBER),
            numba.carray(pointer(at[10]), (groups, at[11], 1), NUMBER),
            few, held, group, bits, order, splits, scores, sums, tops, parts, block, scaled, read,
        )  # fmt: skip
        leave(x, read, maps[i], weight, eps, normed, both, middle, out)


full, rows, heavy, quantised, quest, tokenselect = (
    compiled(loop, parallel=False) for loop in (_full, _rows, _heavy, _quantised, _quest, _tokenselect)
)
__all__ = ["full", "heavy", "quantised", "quest", "rows", "tokenselect", "use_threads"]
