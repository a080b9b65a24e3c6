"""Full cache: every key and value is kept, and every query reads all before it.

Memory 2 t g s numbers a layer and sequence for g key heads of width s; a step reads all of it. The reference that the
other policies are measured against.
"""

from collections.abc import Sequence

from torch import Tensor

from paceline.context._contract import Memory, Place, Policy, read
from paceline.context._steps import Step, full_step
from paceline.core.card import Source
from paceline.core.growing import append, empty

PAPERS = (Source(title="Attention Is All You Need", arxiv="1706.03762", year=2017),)


class Full(Policy):
    """Keeps everything."""

    exact = True
    cuts = True
    masks = True
    pieces = "any"

    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        """See `Policy.empty`."""
        return {"k": empty(batch, heads, width, like), "v": empty(batch, heads, width, like)}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory, place: Place) -> tuple[Tensor, Memory]:
        """See `Policy.attend`."""
        keys, values = append(memory["k"], k), append(memory["v"], v)
        return read(q, keys, values, place.mask), {"k": keys, "v": values}

    def step_quickly(self, step: Step, past: Sequence[Memory]) -> Sequence[Memory] | None:
        """See `Policy.step_quickly`."""
        return full_step(step, past) if type(self) is Full else None


def full_budget(length: int) -> list[Policy]:
    """Settings at which it is full attention over `length` tokens."""
    return [Full()]


def example() -> list[Policy]:
    """The policy."""
    return [Full()]
