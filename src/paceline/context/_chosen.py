"""A step of one token that reads chosen tokens of its cache, in compiled loops: for processors with numba."""

import importlib
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


@cache
def _loops() -> Any:
    return importlib.import_module("paceline.context._chosen_numba")


def _whole(x: Tensor) -> Any:
    """(g, m, s) whose first tokens are those held: contiguous, unlike the front of a growing buffer."""
    base = x._base
    whole = base is not None and base.shape[:2] == x.shape[:2] and base.stride(2) == x.stride(2) == base.shape[3]
    return (base if whole and base.data_ptr() == x.data_ptr() else x.contiguous()).numpy()[0]  # type: ignore[union-attr]


def pages_of(
    q: Float[Tensor, "1 h 1 s"],
    keys: Float[Tensor, "1 g n s"],
    values: Float[Tensor, "1 g n s"],
    bounds: Float[Tensor, "1 g p 2*s"],
    page: int,
    count: int,
    together: bool,
) -> Float[Tensor, "1 h 1 s"]:
    """What each head reads of the last page and of the `count` - 1 others of the highest bound (`quest.py`)."""
    heads, held = q.shape[1], keys.shape[2]
    loops, out = _loops(), q.new_empty(q.shape)
    loops.use_threads(torch.get_num_threads())
    scores = q.new_empty(heads, (held - 1) // page)
    chosen, tokens = (torch.empty(heads, n, dtype=torch.long) for n in (count, count * page))
    weights = q.new_empty(heads, count * page)
    scratch = (x.numpy() for x in (scores, chosen, tokens, weights))
    loops.pages(
        q[0, :, 0].contiguous().numpy(), *map(_whole, (keys, values, bounds)), held, page, count, together, *scratch,
        out[0, :, 0].numpy(),
    )  # fmt: skip
    return out


def voted_by(
    q: Float[Tensor, "1 h 1 s"], keys: Float[Tensor, "1 g n s"], low: int, high: int, count: int
) -> Int[Tensor, "1 m"]:
    """The `count` tokens between `low` and `high` for which the heads vote (`tokenselect.py`), ascending."""
    loops, groups, width = _loops(), keys.shape[1], q.shape[3]
    loops.use_threads(torch.get_num_threads())
    grouped = q.reshape(groups, -1, width)
    share = grouped.shape[1]
    padded = functional.pad(grouped, (0, 0, 0, -share % 4))
    raw, votes = q.new_empty(groups, padded.shape[1], high - low).numpy(), q.new_empty(high - low).numpy()
    best = torch.empty(count, dtype=torch.long)
    loops.vote(padded.contiguous().numpy(), share, _whole(keys), low, high, raw, votes)
    loops.best(votes, count, best.numpy())
    return (best + low).unsqueeze(0)


def read_tokens(
    q: Float[Tensor, "1 h 1 s"],
    keys: Float[Tensor, "1 g n s"],
    values: Float[Tensor, "1 g n s"],
    first: int,
    chosen: Int[Tensor, " m"],
    last: int,
) -> Float[Tensor, "1 h 1 s"]:
    """What all heads read of the `first` tokens, the chosen ones between, and the `last`."""
    loops, out, held = _loops(), q.new_empty(q.shape), keys.shape[2]
    loops.use_threads(torch.get_num_threads())
    tokens = torch.cat((torch.arange(first), chosen, torch.arange(held - last, held)))
    weights = q.new_empty(q.shape[1], len(tokens)).numpy()
    loops.read_all(
        q[0, :, 0].contiguous().numpy(), *map(_whole, (keys, values)), tokens.numpy(), weights, out[0, :, 0].numpy()
    )
    return out
