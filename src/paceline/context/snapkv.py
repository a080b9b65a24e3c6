"""SnapKV: of a prompt, what its last tokens attend to is kept, and those last tokens.

    score of a key = weights of the prompt's last `observed` queries, summed, averaged over `kernel` neighbours
    kept           = the last `observed` tokens, and of the others the ones of the highest scores: `tokens` in all

Each key head keeps tokens of its own. What is generated later is kept in full. Memory 2 g s (tokens + generated)
numbers a layer and sequence. Keys keep their true rotary positions.

The method is defined for prompts that end with the question, which then decides what is kept. It is question-blind
where the context is read first and the question as a second piece. A read of fewer tokens than `observed` counts as
decoding and forgets nothing; so does a short question. Longer pieces are cut one after the other, by what is left
then.

Departure: the authors repeat the key heads first, so that query heads keep tokens apart and the cache grows by their
number; here the query heads that share a key head vote together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from paceline.context._contract import Memory, Place, Policy, read
from paceline.context._rows import keep, weights, whole
from paceline.context._steps import Step, full_step
from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.growing import append, empty

PAPERS = (Source(title="SnapKV: LLM Knows What You are Looking for Before Generation", arxiv="2404.14469", year=2024),)


class SnapKV(Policy):
    """Keeps what the end of a prompt looks at.

    Args:
        tokens: how many of a prompt are kept.
        observed: how many of its last tokens look.
        kernel: width of the average over neighbours, odd.

    Raises:
        PacelineError: nothing is left to choose, or the kernel is even.
    """

    evicts = True
    blind = False

    def __init__(self, tokens: int = 256, observed: int = 32, kernel: int = 5) -> None:
        whole("SnapKV", 1, tokens=tokens, kernel=kernel)
        whole("SnapKV", 2, observed=observed)
        if observed >= tokens:
            raise PacelineError(
                f"SnapKV: {observed} observed tokens leave none to choose of {tokens}: give more tokens."
            )
        if kernel % 2 == 0:
            raise PacelineError(f"SnapKV: kernel must be odd, to have a middle, not {kernel}.")
        self.tokens, self.observed, self.kernel = tokens, observed, kernel

    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        """See `Policy.empty`."""
        return {"k": empty(batch, heads, width, like), "v": empty(batch, heads, width, like)}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory, place: Place) -> tuple[Tensor, Memory]:
        """See `Policy.attend`."""
        self.refuse_mask(place)
        if self._forgets_nothing(q.shape[2], memory):
            keys, values = append(memory["k"], k), append(memory["v"], v)
            return read(q, keys, values), {"k": keys, "v": values}
        keys, values = torch.cat((memory["k"], k), dim=2), torch.cat((memory["v"], v), dim=2)
        held = keys.shape[2]
        early = held - self.observed
        score = weights(q[:, :, -self.observed :], keys)[..., :early].sum(dim=(2, 3))
        score = functional.avg_pool1d(score, self.kernel, stride=1, padding=self.kernel // 2)
        best = score.topk(self.tokens - self.observed).indices.sort().values
        last = torch.arange(early, held, device=q.device).expand(*best.shape[:2], -1)
        kept = torch.cat((best, last), dim=2)
        return read(q, keys, values), {"k": keep(keys, kept), "v": keep(values, kept)}

    def step_quickly(self, step: Step, past: Sequence[Memory]) -> Sequence[Memory] | None:
        """See `Policy.step_quickly`. Decoding: what was kept is read whole."""
        known = type(self).attend is SnapKV.attend and self._forgets_nothing(step.tokens, past[0])
        return full_step(step, past) if known else None

    def _forgets_nothing(self, new: int, memory: Memory) -> bool:
        return new < self.observed or memory["k"].shape[2] + new <= self.tokens


def full_budget(length: int) -> list[Policy]:
    """Settings at which it is full attention over `length` tokens."""
    return [SnapKV(length, 2, 1)]


def example() -> list[Policy]:
    """Small ones."""
    return [SnapKV(6, 2, 3), SnapKV(5, 4, 1)]
