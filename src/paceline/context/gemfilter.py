"""GemFilter: the first layers choose which tokens of a prompt the model reads at all.

    score = sum over heads of the last token's query times the keys, at layer `layer`, averaged over `kernel` neighbours
    kept  = the `tokens` tokens of the highest scores, in their order

Then the whole model reads these anew, at positions 0 to tokens - 1, and what follows goes on from there. The first
pass costs layer + 1 layers over the prompt and keeps no cache; memory is that of `tokens` tokens. As in the authors'
code the scores are bare products, without softmax or 1 / sqrt(s), nothing but the scores decides (the last token need
not stay), and the average counts zeros beyond the ends.

The method is defined for prompts that end with the question, which then decides what is kept. It is question-blind
where the context is read first and the question afterwards.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from paceline.context._contract import Memory, Place, Policy, read
from paceline.context._reader import Reader
from paceline.context._rows import whole
from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.read_end import read_end
from paceline.core.state import LM, State

PAPERS = (
    Paper(
        title="Discovering the Gems in Early Layers: Accelerating Long-Context LLMs with 1000x Input Token Reduction",
        arxiv="2409.17422",
        year=2024,
        says="The tokens that an early layer's last query points at answer as well as the whole prompt.",
    ),
)


class GemFilter(Reader):
    """Reads what an early layer points at.

    Args:
        layer: whose scores choose, from 0.
        tokens: how many are kept.
        kernel: width of the average over neighbours, odd.

    Raises:
        PacelineError: numbers that make no sense; when it is used, a model whose layers cannot be run alone.
    """

    blind = False

    def __init__(self, layer: int, tokens: int = 1024, kernel: int = 5) -> None:
        whole("GemFilter", 0, layer=layer)
        whole("GemFilter", 1, tokens=tokens, kernel=kernel)
        if kernel % 2 == 0:
            raise PacelineError(f"GemFilter: kernel must be odd, to have a middle, not {kernel}.")
        self.layer, self.tokens, self.kernel = layer, tokens, kernel
        self._kept = 1.0

    def check(self, lm: LM) -> None:
        """See `Reader.check`."""
        if not all(hasattr(lm, name) for name in ("under", "through", "embed", "depth")):
            raise PacelineError("GemFilter runs a model's first layers alone, which the lean Llama-like models can do.")
        if self.layer >= lm.depth:  # type: ignore[attr-defined]
            raise PacelineError(f"GemFilter: the model has no layer {self.layer}, its last is {lm.depth - 1}.")  # type: ignore[attr-defined]

    def read_prompt(self, lm: LM, ids: Tensor) -> tuple[Tensor, State]:
        """See `Reader.read_prompt`."""
        self._kept = min(1.0, self.tokens / ids.shape[1])
        return read_end(lm, ids if ids.shape[1] <= self.tokens else ids.gather(1, self.choose(lm, ids)), None)

    @torch.no_grad()
    def choose(self, lm: Any, ids: Tensor) -> Tensor:
        """Which of the prompt's tokens (b, t) are kept: (b, tokens), in order."""
        lm.check_length(ids.shape[1])
        probe = _Probe(self.layer)
        positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        lm.under(probe).through(lm.embed(ids), ({},) * (self.layer + 1), 0, positions)
        score = functional.avg_pool1d(probe.score, self.kernel, stride=1, padding=self.kernel // 2)
        return score.topk(self.tokens).indices.sort().values

    def meters(self) -> dict[str, float]:
        """`kept`: the share of the last prompt's tokens that the whole model has read."""
        return {"kept": self._kept}


class _Probe(Policy):
    """Full attention that remembers nothing, and notes what the last query at one layer points at."""

    def __init__(self, layer: int) -> None:
        self.layer, self.score = layer, torch.empty(0)

    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        return {}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory, place: Place) -> tuple[Tensor, Memory]:
        if place.layer == self.layer:
            last = q[:, :, -1].unflatten(1, (k.shape[1], -1)).sum(2, keepdim=True)  # a sum of products is one product
            self.score = (last @ k.transpose(2, 3)).sum(1).squeeze(1)  # (b, t)
            return q, {}  # nobody asks what comes out of this layer
        return read(q, k, v), {}


def example() -> list[Reader]:
    """Small ones, for models of two layers."""
    return [GemFilter(0, 6, 3), GemFilter(1, 4, 1)]


def full_budget(length: int) -> list[Reader]:
    """Settings at which a prompt of `length` tokens is read as ever."""
    return [GemFilter(0, length)]
