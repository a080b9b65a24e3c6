"""The distribution that a token is drawn from: logits, cut and sharpened.

    p = softmax(logits / temperature), restricted to
        the k likeliest tokens                                                     top_k    (Fan et al. 2018)
        the fewest likeliest tokens whose probabilities reach the share             top_p    (Holtzman et al. 2020)
        tokens at least `min_p` times as likely as the likeliest                    min_p    (Nguyen et al. 2024)
        the tokens nearest in surprise to the entropy, up to the share              typical  (Meister et al. 2023)

in this order, each renormalised for the next. Temperature 0 is the likeliest token. Speculation needs the whole
distribution, not only a draw from it, so it lives here and not in a sampler.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.errors import PacelineError

FEW = 16
"""Rows that are not worth a second thread."""


@dataclass(frozen=True)
class Choice:
    """How to draw from logits.

    Raises:
        PacelineError: a value outside its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    """0: no limit."""
    top_p: float = 1.0
    min_p: float = 0.0
    typical: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise PacelineError(f"The temperature must be 0 or above, not {self.temperature}.")
        if self.top_k < 0:
            raise PacelineError(f"top_k must be at least 1, or 0 for no limit, not {self.top_k}.")
        for name, value in (("top_p", self.top_p), ("typical", self.typical)):
            if not 0 < value <= 1:
                raise PacelineError(f"{name} must be above 0 and at most 1, not {value}.")
        if not 0 <= self.min_p < 1:
            raise PacelineError(f"min_p must be at least 0 and below 1, not {self.min_p}.")

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0

    def probabilities(self, logits: Float[Tensor, "*b v"]) -> Float[Tensor, "*b v"]:
        """Of each token, in float64."""
        logits = logits.double()
        if self.greedy:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        p = ((logits - logits.amax(-1, keepdim=True)) / self.temperature).softmax(-1)
        if 0 < self.top_k < p.shape[-1]:
            p = _renormalised(p, p >= p.topk(self.top_k, dim=-1).values[..., -1:])
        if self.top_p < 1:
            p = _up_to(p, -p, self.top_p)
        if self.min_p > 0:
            p = _renormalised(p, p >= self.min_p * p.amax(-1, keepdim=True))
        if self.typical < 1:
            surprise = -p.clamp_min(1e-300).log()
            entropy = torch.special.entr(p).sum(-1, keepdim=True)
            p = _up_to(p, torch.where(p > 0, (surprise - entropy).abs(), math.inf), self.typical)
        return p

    def draw(self, logits: Float[Tensor, "b v"], draws: torch.Generator) -> Int[Tensor, " b"]:
        """A token for each row."""
        if self.greedy:
            return likeliest(logits)
        return torch.multinomial(self.probabilities(logits), 1, generator=draws).squeeze(-1)


def likeliest(logits: Float[Tensor, "b v"]) -> Int[Tensor, " b"]:
    """The likeliest token of each row, of equals the first."""
    return torch.from_numpy(logits.detach().numpy().argmax(-1)) if _small(logits) else logits.argmax(-1)


def largest(logits: Float[Tensor, "b v"]) -> Float[Tensor, " b"]:
    """The largest logit of each row; not a number where one is none."""
    return torch.from_numpy(logits.detach().numpy().max(-1)) if _small(logits) else logits.amax(-1)


def _small(logits: Tensor) -> bool:
    """Whether numpy should do it, in 5 us a row: torch wakes its threads for one row, which takes 100."""
    return logits.device.type == "cpu" and logits.dtype == torch.float32 and len(logits) < FEW


def _renormalised(p: Tensor, kept: Tensor) -> Tensor:
    p = p * kept
    return p / p.sum(-1, keepdim=True)


def _up_to(p: Tensor, rank: Tensor, share: float) -> Tensor:
    """The tokens of lowest rank whose probabilities together reach the share."""
    order = rank.argsort(dim=-1, stable=True)
    sorted_p = p.gather(-1, order)
    kept = sorted_p.cumsum(-1) - sorted_p < share
    return _renormalised(p, torch.zeros_like(kept).scatter_(-1, order, kept))
