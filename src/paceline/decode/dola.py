"""DoLa: what the last layer says against what an early one said, so that knowledge gained on the way up counts.

    M     = argmax over candidate layers j of JSD(q_N(x_t) || q_j(x_t))
    F_t   = log q_N(x_t) - log q_M(x_t)   where q_N(x_t) >= alpha max q_N, else minus infinity
    p     = softmax(F)

with q_N the model's distribution and q_j that of the head on the stream before layer j (0: the embedding), chosen for
each token anew. As in the authors' code the head reads an early stream without the final norm, candidates are the even
layers of the lower or upper half, and alpha is 0.1. Their code takes the divergences from the mean distribution,
KL(mean || q); here they are to it, KL(q || mean), as the paper's Jensen-Shannon divergence has it. They add a
repetition penalty when decoding, which is not part of the method. Cost: one call, and the head once a candidate.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.state import LM, State
from paceline.decode._choice import Choice
from paceline.decode._contract import Stepwise, Strategy
from paceline.decode._hidden import Seen

PAPERS = (
    Source(
        title="DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language Models",
        arxiv="2309.03883",
        year=2023,
    ),
)


class DoLa(Stepwise):
    """Draws from the contrast of layers.

    Args:
        layers: which half the early layer is chosen from; the paper's choice is `low` for long answers, `high` for
            short ones.
        alpha: how likely a token must be, in parts of the likeliest; 1 is greedy.
        temperature: of the choice; 0 is greedy. So are `top_k` and `top_p`.

    Raises:
        PacelineError: a number outside its range; later, a model that does not show its layers.
    """

    def __init__(
        self,
        layers: Literal["low", "high"] = "low",
        alpha: float = 0.1,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> None:
        super().__init__(Choice(temperature, top_k, top_p))
        if layers not in ("low", "high"):
            raise PacelineError(f"dola: layers must be 'low' or 'high', not {layers!r}.")
        if not 0 < alpha <= 1:
            raise PacelineError(f"dola: alpha must be above 0 and at most 1, not {alpha}.")
        self.layers, self.alpha = layers, alpha

    def prepare(self, lm: LM) -> LM:
        """The contrasted model, itself a language model."""
        return Contrasted(lm, self.layers, self.alpha)


class Contrasted:
    """A model's last layer against its early ones, itself a `core.state.LM`; arguments as in `DoLa`.

    Attributes:
        candidates: the layers whose streams, before them, are contrasted.
    """

    def __init__(self, lm: LM, layers: Literal["low", "high"], alpha: float) -> None:
        self.lm, self.alpha, self.vocab_size = lm, alpha, lm.vocab_size
        self.longest: int | None = getattr(lm, "longest", None)
        self.initial_state = lm.initial_state
        self._seen = Seen(lm, "dola")
        half = (self._seen.depth + 1) // 2
        evens = range(0, self._seen.depth, 2)
        self.candidates = [j for j in evens if (j < half) == (layers == "low")]
        if not self.candidates:
            raise PacelineError(f"dola: a model of {self._seen.depth} layers has no layer {layers} enough to contrast.")

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t v"], State]:
        """Contrasted logits of each next token, and the model's state after them."""
        logits, streams, state = self._seen(ids, state)
        early = torch.stack([self._seen.head(streams[j]) for j in self.candidates])
        return contrasted(logits, early.to(logits), self.alpha), state


def contrasted(last: Float[Tensor, "b t v"], early: Float[Tensor, "j b t v"], alpha: float) -> Float[Tensor, "b t v"]:
    """The contrast of the last layer's logits with those of whichever early layer diverges most from it."""
    q, layers = last.log_softmax(-1), early.log_softmax(-1)
    mean = torch.logaddexp(q, layers) - math.log(2)
    divergence = ((q.exp() * (q - mean)).sum(-1) + (layers.exp() * (layers - mean)).sum(-1)) / 2  # (j, b, t)
    chosen = divergence.argmax(0)[None, ..., None].expand(1, *last.shape)
    contrast = q - layers.gather(0, chosen)[0]
    return contrast.where(q >= q.amax(-1, keepdim=True) + math.log(alpha), -math.inf)


def example(lm: LM) -> list[Strategy]:
    """Greedy, and drawn."""
    return [DoLa(), DoLa(alpha=0.3, temperature=0.8)]


def greedy_limit(lm: LM) -> list[Strategy]:
    """Only the likeliest token is likely enough."""
    return [DoLa(alpha=1.0)]
