"""Ring attention: softmax attention whose keys and values go round, a block at a time.

    in step i = 0 .. n-1 process t has the keys and values of process t - i, computes what its queries see there,
    o and the logarithm l of the sum of exponentials, and merges:  l' = log(e^l + e^m),  o' = e^(l-l') o + e^(m-l') p

while the next block travels. Backward the blocks go round once more, and their gradients with them, back home. Causal
blocks that lie in the future are passed on unread, so later processes work longer. With KV the bytes of a process's
keys and values, (n - 1) KV are sent forward and (2 n - 1) KV backward: both grow with the length. Rounds: n - 1 and n.
Memory: the scores of one block, (t / n)^2 a head.
"""

from typing import Any

import torch
from torch import Tensor

from paceline.core.card import Source
from paceline.parallel._contract import SequenceParallel, Shape, Traffic
from paceline.parallel._link import Link

PAPERS = (
    Source(title="Ring Attention with Blockwise Transformers for Near-Infinite Context", arxiv="2310.01889", year=2023),
)


class Ring(SequenceParallel):
    """Softmax attention by a ring of keys and values. See `SequenceParallel`; heads may share keys and values."""

    linear = False

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None) -> Tensor:
        """See `SequenceParallel.attend`."""
        outputs: Tensor = _Round.apply(q, k, v, self.link, self.causal)
        return outputs

    @staticmethod
    def traffic(shape: Shape, rank: int) -> Traffic:
        """See `SequenceParallel.traffic`."""
        if shape.ranks == 1:
            return Traffic(0, 0, 0, 0)
        hops = shape.ranks - 1
        return Traffic(hops * shape.keys_values, (2 * hops + 1) * shape.keys_values, hops, hops + 1)

    def naive(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None = None) -> Tensor:
        """See `SequenceParallel.naive`."""
        return naive_softmax(q, k, v, self.causal)


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, link: Link, causal: bool) -> Tensor:
        outputs = torch.zeros(*q.shape[:3], v.shape[3], dtype=q.dtype, device=q.device)
        total = q.new_full((*q.shape[:3], 1), -torch.inf)
        block = torch.cat((k, v), dim=3)
        for step in range(link.size):
            source = (link.rank - step) % link.size
            coming = link.turn(block) if step + 1 < link.size else None
            if not causal or source <= link.rank:
                scores, values = _scores(q, block, causal and not step)
                seen = scores.logsumexp(3, keepdim=True)
                read = (scores - seen).exp() @ values
                merged = torch.logaddexp(total, seen)
                outputs = (total - merged).exp() * outputs + (seen - merged).exp() * read
                total = merged
            block = block if coming is None else coming.wait()
        ctx.link, ctx.causal = link, causal
        ctx.save_for_backward(q, k, v, outputs, total)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, outputs, total = ctx.saved_tensors
        link, given = ctx.link, gradients[0]
        groups, scale = q.shape[1] // k.shape[1], q.shape[3] ** -0.5
        block = torch.cat((k, v), dim=3)
        of_block, of_q = torch.zeros_like(block), torch.zeros_like(q)
        inner = (given * outputs).sum(3, keepdim=True)
        home = None  # the gradients of the block that is read, on their way here
        for step in range(link.size):
            source = (link.rank - step) % link.size
            coming = link.turn(block) if step + 1 < link.size else None
            added = None
            if not ctx.causal or source <= link.rank:
                scores, values = _scores(q, block, ctx.causal and not step)
                shares = (scores - total).exp()
                of_scores = shares * (given @ values.transpose(2, 3) - inner) * scale
                keys = block[..., : k.shape[3]].repeat_interleave(groups, dim=1)
                of_q = of_q + of_scores @ keys
                pieces = torch.cat((of_scores.transpose(2, 3) @ q, shares.transpose(2, 3) @ given), dim=3)
                added = pieces.unflatten(1, (-1, groups)).sum(2)
            of_block = of_block if home is None else home.wait()
            of_block = of_block if added is None else of_block + added
            home = link.turn(of_block)
            block = block if coming is None else coming.wait()
        assert home is not None
        of_k, of_v = home.wait().split((k.shape[3], v.shape[3]), dim=3)
        return of_q, of_k, of_v, None, None


def _scores(q: Tensor, block: Tensor, own: bool) -> tuple[Tensor, Tensor]:
    """Scores (b, heads, t, t) of the queries with a block's keys, and its values; `own` hides what is later."""
    keys, values = block.repeat_interleave(q.shape[1] // block.shape[1], dim=1).split(
        (q.shape[3], block.shape[3] - q.shape[3]), dim=3
    )
    scores = q @ keys.transpose(2, 3) * q.shape[3] ** -0.5
    if own:
        hidden = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores, values


def naive_softmax(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """The matrix of all scores."""
    scores, values = _scores(q, torch.cat((k, v), dim=3), causal)
    return scores.softmax(3) @ values


def example(link: Link) -> list[SequenceParallel]:
    """Causal, and both ways."""
    return [Ring(link), Ring(link, causal=False)]
