"""A step of decoding through all layers of a quick model, in compiled loops: for processors with numba."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paceline.context._contract import Memory
from paceline.core.growing import room
from paceline.core.stacked import Stacked, stacked

KEPT = ("k", "v")
"""What of each layer grows in one buffer with that of the others."""
BLOCK = 64
"""Tokens in few bits that become numbers at a time: as in `core/step_numba.py`, which may be missing."""
PIECE = 256
"""Tokens of a cache that are worth a piece of their own."""


@dataclass(frozen=True)
class Step:
    """What a model gives for the next tokens of one sequence, or the next one of each of several: float32 on a
    processor."""

    x: Float[Tensor, "t d"]
    """What the first layer reads, filled up to fours where there are several; it becomes what the last one writes."""
    tokens: int
    """Rows that are no filling."""
    mask: Bool[Tensor, "r n"] | None
    """Where the rows are of several sequences, which keys each sees, its own the last."""
    heads: int
    """Query heads."""
    groups: int
    """Key heads."""
    width: int
    """Of a head."""
    eps: float
    """Of the norms."""
    turn: tuple[Any, Any]
    """Cosines and sines of the tokens' positions, as arrays."""
    maps: "Maps"

    def given(self) -> tuple[Any, ...]:
        """What all loops begin with, scratch included."""
        sizes = (self.tokens, self.heads, self.groups, self.eps)
        return (self.x.numpy(), *sizes, *self.turn, self.maps.addresses, self.maps.weight, *self.scratch())

    def scratch(self) -> tuple[Any, ...]:
        """What a layer writes and forgets: the normed input; queries, keys and values; what is read; gates with what
        they let through, and the product of both; the output."""
        (t, d), heads, both = self.x.shape, self.heads * self.width, self.maps.both
        sizes = (d, heads + 2 * self.groups * self.width, heads, both, both // 2, d)
        return tuple(self.x.new_empty(t, size).numpy() for size in sizes)

    def pieces(self, held: int) -> tuple[Any, ...]:
        """The numbers of so many tokens, in how many pieces such a cache is read whole, and their scratch."""
        splits = max(1, min(held // PIECE, 2 * torch.get_num_threads()))
        pieces = (self.groups * splits, len(self.x), self.heads // self.groups)
        sizes = ((*pieces, -(-held // splits)), pieces, pieces, (*pieces, self.width))
        return (np.arange(held), splits, *(self.x.new_empty(size).numpy() for size in sizes))


@dataclass(frozen=True)
class Maps:
    """A model's weights, layer by layer."""

    kept: Sequence[Sequence[Tensor]]
    """Of each layer weights (o, i) and scales (o,) of queries with keys and values, of the output, of gates with what
    they let through, and of the way down; then the weights of both norms. All contiguous, alike in every layer."""

    @cached_property
    def addresses(self) -> Any:
        """(layers, 10)"""
        return np.array([[tensor.data_ptr() for tensor in layer] for layer in self.kept])

    @cached_property
    def weight(self) -> Any:
        """Typed as the weights are."""
        return self.kept[0][0].new_empty(0).numpy()

    @property
    def both(self) -> int:
        """Outputs of gates with what they let through."""
        return len(self.kept[0][4])


def full_step(step: Step, past: Sequence[Memory]) -> Stacked | None:
    """All layers with the whole cache (`full.py`), or None where they remember different numbers of tokens."""
    if not isinstance(past, Stacked) and len({memory["k"].shape[2] for memory in past}) > 1:
        return None
    if step.mask is not None:
        return _rows_step(step, past, step.mask)
    after = stacked(past, KEPT).room(step.tokens)
    _loops().full(*step.given(), after.tokens, after.places.numpy(), *step.pieces(after.tokens))
    return after


def _rows_step(step: Step, past: Sequence[Memory], mask: Bool[Tensor, "r n"]) -> Stacked:
    after = stacked(past, KEPT).room(1)
    seen = mask.sum(1)
    order = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)  # those that are seen first
    pieces = (step.tokens * step.groups, step.heads // step.groups)
    sizes = ((*pieces, after.tokens), pieces, (*pieces, step.width))
    arrays = (order, seen, *(step.x.new_empty(size) for size in sizes))
    _loops().rows(*step.given(), after.tokens, after.places.numpy(), *(array.numpy() for array in arrays))
    return after


def heavy_step(step: Step, past: Sequence[Memory], most: int, recent: int) -> tuple[Memory, ...]:
    """All layers under `h2o.py`, for one token: `most` tokens are kept, the last `recent` of them anyway."""
    now = stacked([{name: memory[name] for name in KEPT} for memory in past], KEPT).room(1)
    stay = min(now.tokens, most)
    left = now if stay == now.tokens else now.blank(stay)
    before = torch.cat([memory["score"] for memory in past])
    after = before.new_empty(*before.shape[:2], stay)
    _loops().heavy(
        *step.given(), now.tokens, now.places.numpy(), *step.pieces(now.tokens), left.places.numpy(), recent,
        before.numpy(), after.numpy(), before.new_empty(now.tokens).numpy(),
    )  # fmt: skip
    return tuple({**layer, "score": score} for layer, score in zip(left, after.split(1), strict=True))


def quantised_step(step: Step, past: Sequence[Memory], bits: int, group: int) -> tuple[Memory, ...]:
    """All layers under `quantised.py`: the tokens join those in full precision."""
    few = past[0]["k_codes"].shape[2]
    full = stacked([{name: memory[name] for name in KEPT} for memory in past], KEPT).room(step.tokens)
    coded = _table(past, "k_codes", "k_low", "k_step", "v_codes", "v_low", "v_step")
    pieces = step.pieces(few + full.tokens)
    count = step.groups * pieces[1]
    scratch = (step.x.new_empty(*sizes, step.width).numpy() for sizes in ((count, BLOCK), (count,)))
    caches = np.concatenate((full.places.numpy(), coded), axis=1)
    _loops().quantised(*step.given(), few + full.tokens, caches, *pieces, group, bits, few, *scratch)
    return tuple({**memory, **layer} for memory, layer in zip(past, full, strict=True))


def quest_step(
    step: Step, past: Sequence[Memory], dense: int, page: int, count: int, together: bool
) -> tuple[Memory, ...]:
    """All layers under `quest.py`, for one token: `count` pages are read, but by the first `dense` layers."""
    end = past[0]["k"].shape[2] + 1
    after = []
    for layer, memory in enumerate(past):
        bounds = memory["bounds"] if layer < dense or end % page else room(memory["bounds"], 1)
        after.append({"k": room(memory["k"], 1), "v": room(memory["v"], 1), "bounds": bounds})
    heads, x = step.heads, step.x
    bound, weights = x.new_empty(heads, (end - 1) // page), x.new_empty(heads, count * page)
    chosen, listed = (torch.empty(heads, n, dtype=torch.long) for n in (count, count * page))
    _loops().quest(
        *step.given(), end, _table(after, "k", "v", "bounds"), *step.pieces(end), dense, page, count, together,
        *(array.numpy() for array in (bound, chosen, listed, weights)),
    )  # fmt: skip
    return tuple(after)


def tokenselect_step(
    step: Step, past: Sequence[Memory], codes: Sequence[Memory], sinks: int, local: int, count: int, threshold: float
) -> tuple[tuple[Memory, ...], list[bool]]:
    """All layers under `tokenselect.py`, for one token, and which of them voted for the `count` tokens that are chosen.

    `codes` are a layer's keys in 4 bits with their `low` and `step`, the newest still to be written, or empty.
    """
    x, end = step.x, past[0]["k"].shape[2] + 1
    after = [
        {
            "k": room(memory["k"], 1), "v": room(memory["v"], 1), "voter": x.new_empty(1, step.heads * step.width),
            "voted": torch.empty(1, count, dtype=torch.long), **coded,
        }
        for memory, coded in zip(past, codes, strict=True)
    ]  # fmt: skip
    table = np.zeros((len(past), 12), dtype=np.int64)
    table[:, :4] = _table(after, "k", "v")
    for row, before, now in zip(table, past, after, strict=True):
        row[4:8] = [memory[name].data_ptr() for memory in (before, now) for name in ("voter", "voted")]
        if codes[0]:
            row[8:] = (*_place(now["codes"]), now["low"].data_ptr(), now["step"].data_ptr())
    asked, fours = end - sinks - local, -(-step.heads // step.groups // 4) * 4
    raw, sums, votes = x.new_empty(step.groups, fours, asked), x.new_empty(asked), torch.empty(len(past)).bool()
    _loops().tokenselect(
        *step.given(), end, table, sinks, local, threshold, past[0]["voter"].shape[1] > 0, count, raw.numpy(),
        sums.numpy(), votes.numpy(),
    )  # fmt: skip
    return tuple(after), votes.tolist()


@cache
def _modules() -> Any:
    return importlib.import_module("paceline.context._steps_numba")


def _loops() -> Any:
    loops = _modules()
    loops.use_threads(torch.get_num_threads())
    return loops


def _table(memories: Sequence[Memory], *names: str) -> Any:
    """A row a layer: of each of these tensors the address and the tokens that it has room for."""
    return np.array([[number for name in names for number in _place(memory[name])] for memory in memories])


def _place(x: Tensor) -> tuple[int, int]:
    """Of (1, g, n, s): a growing one is the front of its buffer, which has more room."""
    _, group, token, number = x.stride()
    tokens, over = divmod(group, x.shape[3])
    assert x.numel() == 0 or (token, number, over) == (x.shape[3], 1, 0)
    return x.data_ptr(), tokens
