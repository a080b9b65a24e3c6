"""SB-CFM: paths of a Brownian bridge between points that entropic optimal transport has paired.

    plan = argmin  <plan, |x0 - x1|^2> - 2 sigma^2 entropy(plan),          pairs are drawn from it
    x_t  = (1 - t) x0 + t x1 + sigma sqrt(t (1 - t)) e
    u    = x1 - x0 + (1 - 2t) / (2t (1 - t)) (x_t - mean)

The probability flow of the Schroedinger bridge with diffusion sigma. The plan takes b^2 operations a round of
Sinkhorn's algorithm, here on logarithms, so that a small sigma does not underflow.

Departures: times keep 1e-4 from 0 and 1, where u is infinite (the authors add 1e-8 to the divisor). The authors' code
takes the exact plan by default and offers this one.
"""

import math

import torch
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.flows._contract import Flow

PAPERS = (
    Source(
        title="Improving and generalizing flow-based generative models with minibatch optimal transport",
        arxiv="2302.00482",
        year=2023,
        says="entropic pairs and paths of a Brownian bridge give the flow of a Schroedinger bridge",
    ),
)
EDGE = 1e-4
ENOUGH = 1e-6
"""Largest error of a row's weight, in shares of it, at which the plan counts as found."""


class SBCFM(Flow):
    """Brownian bridges between points paired by entropic optimal transport.

    Args:
        sigma: the bridge's diffusion, above 0, in the unit of the points.
        rounds: of Sinkhorn's algorithm, at most.

    Raises:
        PacelineError: sigma is not above 0, or there is no round.
    """

    def __init__(self, sigma: float = 1.0, rounds: int = 1_000) -> None:
        super().__init__(sigma)
        if sigma == 0 or rounds < 1:
            raise PacelineError(f"sb_cfm needs sigma above 0 and a round at least, not sigma={sigma}, rounds={rounds}.")
        self.rounds = rounds

    def _width(self, t: Tensor) -> tuple[Tensor | float, Tensor | float]:
        t = t.clamp(EDGE, 1 - EDGE)
        root = (t * (1 - t)).sqrt()
        return self.sigma * root, self.sigma * (1 - 2 * t) / (2 * root)

    def _pair(self, cost: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        weights = self.plan(cost).flatten().float().to(generator.device if generator else cost.device)
        drawn = torch.multinomial(weights, len(cost), replacement=True, generator=generator).to(cost.device)
        return drawn // len(cost), drawn % len(cost)

    def plan(self, cost: Tensor) -> Tensor:
        """The entropic plan (b, b) of squared distances (b, b): rows and columns each sum to 1 / b.

        Sinkhorn's potentials on logarithms, in float64.
        """
        kernel = -cost.double() / (2 * self.sigma**2)
        least = -math.log(len(cost))
        right = torch.zeros(len(cost), dtype=kernel.dtype, device=kernel.device)
        left = right
        for _ in range(self.rounds):
            left = least - (kernel + right).logsumexp(1)
            right = least - (kernel + left[:, None]).logsumexp(0)
            if float(((kernel + left[:, None] + right).exp().sum(1) * len(cost) - 1).abs().max()) < ENOUGH:
                break
        return (kernel + left[:, None] + right).exp()


def example() -> list[Flow]:
    """A wide bridge and a narrow one."""
    return [SBCFM(), SBCFM(sigma=0.3)]
