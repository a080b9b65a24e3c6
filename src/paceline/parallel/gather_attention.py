"""Softmax attention over a divided sequence by an all-gather of keys and values: the attention layers of LASP-2H.

    all-gather K and V as one message, O_t = softmax(Q_t K^T / sqrt(s)) V over the keys up to process t's own
    backward: each process sends the gradients of the others' keys and values to them, and sums what it gets

With KV the bytes of a process's keys and values, (n - 1) KV are sent in each direction, in two rounds a training step:
the bytes grow with the length, but with few key heads they are few, and one message is easier to hide than n.
Memory: the keys and values of the whole sequence in every process. Any SDPA kernel of torch may do the work.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from paceline.core.card import Source
from paceline.parallel._contract import SequenceParallel, Shape, Traffic
from paceline.parallel._link import Link
from paceline.parallel.ring import naive_softmax

PAPERS = (
    Source(
        title="LASP-2: Rethinking Sequence Parallelism for Linear Attention and Its Hybrid",
        arxiv="2502.07563",
        year=2025,
        says="The softmax layers of a hybrid gather keys and values once, instead of sending them round.",
    ),
    Source(title="The Llama 3 Herd of Models", arxiv="2407.21783", year=2024, says="context parallelism by all-gather"),
)

ROWS = 1_024
"""Queries that are read at a time."""


class GatherAttention(SequenceParallel):
    """Softmax attention by an all-gather of keys and values. See `SequenceParallel`; heads may share keys."""

    linear = False

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None) -> Tensor:
        """See `SequenceParallel.attend`."""
        block = _Everywhere.apply(torch.cat((k, v), dim=3), self.link)
        keys, values = block.split((k.shape[3], v.shape[3]), dim=3)
        shared = q.shape[1] != k.shape[1]
        if not self.causal:
            return functional.scaled_dot_product_attention(q, keys, values, enable_gqa=shared)
        before, read = self.link.rank * q.shape[2], []
        for rows in q.split(ROWS, dim=2):  # so that no mask is of all queries with all keys
            before += rows.shape[2]
            seen = torch.ones(rows.shape[2], before, dtype=torch.bool, device=q.device).tril(before - rows.shape[2])
            read.append(
                functional.scaled_dot_product_attention(
                    rows, keys[:, :, :before], values[:, :, :before], attn_mask=seen, enable_gqa=shared
                )
            )
        return torch.cat(read, dim=2)

    @staticmethod
    def traffic(shape: Shape, rank: int) -> Traffic:
        """See `SequenceParallel.traffic`."""
        sent, round_ = (shape.ranks - 1) * shape.keys_values, int(shape.ranks > 1)
        return Traffic(sent, sent, round_, round_)

    def naive(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None = None) -> Tensor:
        """See `SequenceParallel.naive`."""
        return naive_softmax(q, k, v, self.causal)


class _Everywhere(torch.autograd.Function):
    """(b, heads, t, w) of each process -> (b, heads, n t, w) in all; the transpose sums what comes home."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, link: Link) -> Tensor:
        ctx.link = link
        return link.gather(x).wait().movedim(0, 2).flatten(2, 3)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        parts = gradients[0].unflatten(2, (ctx.link.size, -1)).movedim(2, 0)
        return ctx.link.scatter(parts).wait().sum(0), None


def example(link: Link) -> list[SequenceParallel]:
    """Causal, and both ways."""
    return [GatherAttention(link), GatherAttention(link, causal=False)]
