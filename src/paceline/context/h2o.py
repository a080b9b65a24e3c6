"""H2O: the tokens that attention has fallen on most are kept, and the last ones; the others are forgotten.

    score of a key = sum of the attention weights that it has got from all queries so far
    kept           = the last `recent` tokens, and of the others the ones of the highest scores: `tokens` in all

Each key head keeps tokens of its own, by the sum over the query heads that share it. Memory g (2 s + 1) tokens numbers
a layer and sequence. A prompt is read in full and cut afterwards, piece by piece if it comes in pieces, which
therefore decide what is kept. Keys keep their true rotary positions. The scores of long prompts are dominated by their
early tokens, which more queries see: so it is in the paper.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from paceline.context._contract import Memory, Place, Policy
from paceline.context._rows import keep, weights, whole
from paceline.context._steps import Step, heavy_step
from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.growing import empty

PAPERS = (
    Source(
        title="H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models",
        arxiv="2306.14048",
        year=2023,
    ),
)
BLOCK = 256
"""Queries whose weights are held at a time."""


class H2O(Policy):
    """Keeps heavy hitters and the last tokens.

    Args:
        tokens: how many are kept.
        recent: how many of them are the last ones.

    Raises:
        PacelineError: the last ones are more than all.
    """

    evicts = True

    def __init__(self, tokens: int = 256, recent: int = 128) -> None:
        whole("H2O", 1, tokens=tokens, recent=recent)
        if recent > tokens:
            raise PacelineError(f"H2O: {recent} recent tokens are more than {tokens}: give more tokens.")
        self.tokens, self.recent = tokens, recent

    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        """See `Policy.empty`. `score` is (b, g, n)."""
        nothing = empty(batch, heads, width, like)
        return {"k": nothing, "v": nothing.clone(), "score": nothing[..., 0].clone()}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory, place: Place) -> tuple[Tensor, Memory]:
        """See `Policy.attend`."""
        self.refuse_mask(place)
        keys, values = torch.cat((memory["k"], k), dim=2), torch.cat((memory["v"], v), dim=2)
        score = torch.cat((memory["score"], k.new_zeros(k.shape[:3])), dim=2)
        outs, behind = [], q.shape[2]
        for queries in q.split(BLOCK, dim=2):
            behind -= queries.shape[2]
            weight = weights(queries, keys, behind)
            score = score + weight.sum(dim=(2, 3))
            outs.append((weight.flatten(2, 3) @ values).reshape(queries.shape))
        if keys.shape[2] > self.tokens:
            early = keys.shape[2] - self.recent
            heavy = score[..., :early].topk(self.tokens - self.recent).indices.sort().values
            last = torch.arange(early, keys.shape[2], device=q.device).expand(*heavy.shape[:2], -1)
            kept = torch.cat((heavy, last), dim=2)
            keys, values, score = keep(keys, kept), keep(values, kept), keep(score, kept)
        return torch.cat(outs, dim=2), {"k": keys, "v": values, "score": score}

    def step_quickly(self, step: Step, past: Sequence[Memory]) -> Sequence[Memory] | None:
        """See `Policy.step_quickly`. Of equal scores the earliest goes."""
        known = type(self).attend is H2O.attend and step.tokens == 1 and past[0]["k"].shape[2] <= self.tokens
        return heavy_step(step, past, self.tokens, self.recent) if known else None


def full_budget(length: int) -> list[Policy]:
    """Settings at which it is full attention over `length` tokens."""
    return [H2O(length, 1)]


def example() -> list[Policy]:
    """Small ones."""
    return [H2O(6, 3), H2O(4, 4)]
