"""LASP, the sequential ring: the state of a linear attention is handed from each process to the next.

    P_t = exp(-rate C) P_(t-1) + M_(t-1)   from process t - 1,   O_t as in LASP-2;   backward from the last to the first

A process sends one state forward and one backward, less than an all-gather, but the last one hears after n - 1
messages, each of which waits for the one before: 2 (n - 1) rounds a training step. The products inside chunks run
while it waits. Causal only: there is no order in which all could be known.

Departure: the authors' first version waits before it computes; this one receives in the background, as it should for
a fair comparison.
"""

from typing import Any

import torch
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.parallel._chunks import naive_linear, part
from paceline.parallel._contract import SequenceParallel, Shape, Traffic
from paceline.parallel._link import Link, Pending

PAPERS = (Source(title="Linear Attention Sequence Parallelism", arxiv="2404.02882", year=2024),)


class LASP(SequenceParallel):
    """Causal linear attention by a chain of states. See `SequenceParallel`.

    Raises:
        PacelineError: it should see both ways.
    """

    def __init__(self, link: Link, causal: bool = True) -> None:
        if not causal:
            raise PacelineError("LASP hands states on in one direction: take LASP2 where tokens see both ways.")
        super().__init__(link, causal)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None) -> Tensor:
        """See `SequenceParallel.attend`."""
        mine = part(q, k, v, rate)
        fading = torch.exp(-mine.rate * mine.length).view(-1, 1, 1)
        chain = _Chain(self.link, fading)
        left = _Begin.apply(mine.left, chain)
        inside = mine.inside()  # while the state is on its way
        return mine.outputs(inside, _End.apply(left, chain))

    @staticmethod
    def traffic(shape: Shape, rank: int) -> Traffic:
        """See `SequenceParallel.traffic`."""
        hops = shape.ranks - 1
        return Traffic(shape.state * (rank < hops), shape.state * (rank > 0), hops, hops)

    def naive(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None = None) -> Tensor:
        """See `SequenceParallel.naive`."""
        return naive_linear(q, k, v, rate, causal=True)


class _Chain:
    """From process to process, forward by +1 and backward by -1."""

    def __init__(self, link: Link, fading: Tensor) -> None:
        self.link, self.fading = link, fading
        self.coming: Pending | None = None

    def listen(self, like: Tensor, direction: int) -> None:
        source = self.link.rank - direction
        self.coming = self.link.receive(like, source) if 0 <= source < self.link.size else None

    def pass_on(self, own: Tensor, direction: int) -> Tensor:
        """Wait for what comes, send it on with this process's own, and return what came."""
        came = torch.zeros_like(own) if self.coming is None else self.coming.wait()
        after = self.link.rank + direction
        if 0 <= after < self.link.size:
            self.link.send(self.fading * came + own, after)
        return came


class _Begin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, chain: _Chain) -> Tensor:
        ctx.chain = chain
        chain.listen(left, +1)
        return left.view_as(left)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.chain.pass_on(gradients[0], -1), None


class _End(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, chain: _Chain) -> Tensor:
        ctx.chain = chain
        return chain.pass_on(left, +1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.chain.listen(gradients[0], -1)
        return gradients[0], None  # to `_Begin`, which hands it on


def example(link: Link) -> list[SequenceParallel]:
    """The only kind."""
    return [LASP(link)]
