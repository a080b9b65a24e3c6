"""Where a window's queries and keys lie: blocks of queries, the span of keys that each block may see, and slabs.

A slab is some neighbouring blocks, few enough for what is computed of them to stay in the cache until it is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

CACHED = 2**19
"""Numbers that a CPU's thread has of a slab's largest intermediate result: two megabytes in single precision."""
LAUNCHED = 2**26
"""Numbers of the same where every product costs a launch instead."""


@dataclass(frozen=True)
class Slab:
    """Neighbouring blocks of some rows: block i has queries `first` + i `block` on, keys `start` + i `block` on."""

    rows: slice
    count: int
    """Blocks of a row."""
    first: int
    block: int
    """Queries of a block."""
    start: int
    span: int
    """Keys of a block."""

    def blocks(self, x: Float[Tensor, "n t s"]) -> Float[Tensor, "blocks block s"]:
        """Queries, or what stands beside them."""
        return x[self.rows, self.first : self.first + self.count * self.block].reshape(-1, self.block, x.shape[2])

    def put(self, x: Float[Tensor, "n t s"], blocks: Float[Tensor, "blocks block s"]) -> None:
        """Writes what `blocks` would read."""
        part = x[self.rows, self.first : self.first + self.count * self.block]
        part.copy_(blocks.view_as(part))

    def spans(self, x: Shaped[Tensor, "n p s"]) -> Shaped[Tensor, "blocks span s"]:
        """Keys or values. They overlap: views, but for a slab of several rows and of several blocks each."""
        part = x[self.rows, self.start : self.start + (self.count - 1) * self.block + self.span]
        return part.unfold(1, self.span, self.block).transpose(2, 3).flatten(0, 1)

    def add(self, x: Float[Tensor, "n p s"], spans: Float[Tensor, "blocks span s"]) -> None:
        """Adds to what `spans` would read."""
        size, rows = self.span if self.count == 1 else self.block, spans.unflatten(0, (-1, self.count))
        for at in range(0, self.span, size):
            part = x[self.rows, self.start + at : self.start + at + self.count * size]
            part += rows[:, :, at : at + size].flatten(1, 2)

    def ages(self, q: Float[Tensor, "n t s"], k: Float[Tensor, "n p s"]) -> Int[Tensor, "block span"]:
        """How long before a query a key stands; below 0, how long after it."""
        first = k.shape[1] - q.shape[1] + self.first - self.start
        steps = torch.arange(first, first + self.block, device=q.device)
        return steps.unsqueeze(1) - torch.arange(self.span, device=q.device)


class Room:
    """Buffers for slab after slab: memory fresh from the system costs more than what is computed in it."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.held: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Uninitialised; the same memory again for the same name."""
        if name not in self.held or self.held[name].numel() < prod(shape):
            self.held[name] = self.like.new_empty(prod(shape))
        return self.held[name][: prod(shape)].view(shape)

    def product(self, name: str, a: Float[Tensor, "b i j"], b: Float[Tensor, "b j l"]) -> Float[Tensor, "b i l"]:
        """A batch of products."""
        return torch.bmm(a, b, out=self(name, *a.shape[:2], b.shape[2]))


def slabs(q: Float[Tensor, "n t s"], k: Float[Tensor, "n p s"], v: Tensor, lookback: int) -> Iterator[Slab]:
    """Every query once."""
    (rows, length, width), past = q.shape, k.shape[1] - q.shape[1]
    here = q.device.type == "cpu" and not torch.compiler.is_compiling()
    size = CACHED * torch.get_num_threads() if here else LAUNCHED
    for first, blocks, block, before in pieces(length, past, lookback):
        span = before + block
        together = max(1, size // (span * max(block, width, v.shape[2])))  # blocks of a slab
        many = min(blocks, together)
        for row in range(0, rows, together // many):
            for done in range(0, blocks, many):
                at, chosen = first + done * block, slice(row, row + together // many)
                yield Slab(chosen, min(many, blocks - done), at, block, past + at - before, span)


def pieces(length: int, past: int, lookback: int) -> list[tuple[int, int, int, int]]:
    """First query, blocks, queries of a block, and keys before its first query.

    The first queries have all keys before them, the others as many as a whole number of blocks that hold the window.
    """
    block = min(max(-(-lookback // 32) * 16, 16), 64)
    reach = -(-lookback // block) * block
    head = min(length, reach - past)
    blocks, tail = divmod(length - head, block)
    found = [(at, 1, min(block, head - at), past + at) for at in range(0, head, block)]
    found += [(head, blocks, block, reach), (length - tail, 1, tail, reach)]
    return [piece for piece in found if piece[1] and piece[2]]
