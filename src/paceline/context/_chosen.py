"""A step of one token that reads chosen tokens of its cache, in compiled loops: for processors with numba."""

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

_NO_CODES = torch.empty(1, 1, 0, 1, dtype=torch.uint8)
_SCRATCH = [torch.empty(0)]


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


def select(
    q: Float[Tensor, "1 h 1 s"],
    keys: Float[Tensor, "1 g n s"],
    values: Float[Tensor, "1 g n s"],
    codes: Mapping[str, Tensor],
    sinks: int,
    local: int,
    threshold: float,
    last: Float[Tensor, "1 _"],
    voted: Int[Tensor, "1 _"],
    count: int,
) -> tuple[Float[Tensor, "1 h 1 s"], Float[Tensor, "1 _"], Int[Tensor, "1 m"], bool]:
    """A step of `tokenselect.py`: what the heads read, the query that voted last, the `count` tokens that it chose
    between the first `sinks` and the last `local`, and whether it is this one.

    `codes` are codes of 4 bits with their `low` and `step`, the newest token's still to be written, or empty.
    """
    loops, held = _loops(), keys.shape[2]
    loops.use_threads(torch.get_num_threads())
    out, voter, chosen = q.new_empty(q.shape), q.new_empty(1, q[0].numel()), voted.new_empty(1, count)
    given = (codes["codes"], codes["low"], codes["step"]) if codes else (_NO_CODES, q[:, :0], q[:, :0])
    groups, asked = keys.shape[1], held - sinks - local
    fours = -(-q.shape[1] // groups // 4) * 4
    scratch = _scratch(groups * fours * asked + asked)
    votes = loops.select(
        q[0, :, 0].contiguous().numpy(), _whole(keys), _whole(values), _whole(given[0]), given[1][0, :, 0].numpy(),
        given[2][0, :, 0].numpy(), held, sinks, local, threshold, last[0].numpy(), voted[0].numpy(), voter[0].numpy(),
        chosen[0].numpy(), scratch[asked:].reshape(groups, fours, asked), scratch[:asked], out[0, :, 0].numpy(),
    )  # fmt: skip
    return out, voter, chosen, votes


def _scratch(size: int) -> Any:
    """Numbers that a step writes and forgets, always in the same place: new memory would have to be cleared."""
    if _SCRATCH[0].numel() < size:
        _SCRATCH[0] = torch.empty(2 * size)
    return _SCRATCH[0].numpy()[:size]
