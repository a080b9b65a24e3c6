"""What a flow is: a way to pair two samples and to move between the points of a pair, which a field learns to follow.

    x_t = (1 - t) x0 + t x1 + s(t) e,   e ~ N(0, 1)      a point between the points of a pair
    u   = x1 - x0 + (s'(t) / s(t)) (x_t - mean)          how it moves there
    loss = mean |field(x_t, t) - u|^2                    conditional flow matching

The minimiser is the field that carries the first distribution to the second, whatever the pairing; `sample` follows it.
Neither distribution needs a density. Pairs are drawn within a batch and all at once: a batch that is too large for the
field is paired first (`pair`) and split afterwards (`matching`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.flows._solve import Velocity, follow

Solver = Literal["euler", "midpoint", "rk4"]


@dataclass(frozen=True)
class Matching:
    """Points on their way and how each moves: what a field is fitted to."""

    t: Float[Tensor, " b"]
    x: Float[Tensor, "b *rest"]
    velocity: Float[Tensor, "b *rest"]


class Flow(ABC):
    """A coupling of two samples, and the paths between them. Subclasses are final.

    Args:
        sigma: standard deviation around the straight path, in the unit of the points; 0 is the path itself.

    Raises:
        PacelineError: sigma is below 0 or no number.
    """

    def __init__(self, sigma: float = 0.0) -> None:
        if not 0 <= sigma < float("inf"):
            raise PacelineError(f"A path cannot have sigma={sigma}: give 0 or a little more.")
        self.sigma = sigma
        self._cost = self._independent = 0.0

    @abstractmethod
    def _pair(
        self, cost: Float[Tensor, "b b"], generator: torch.Generator | None
    ) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
        """Which points go together, given the squared distances of all pairs."""

    def pair(
        self, x0: Float[Tensor, "b *rest"], x1: Float[Tensor, "..."], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "b *rest"], Float[Tensor, "b *rest"]]:
        """Points of the first sample, and row by row the points of the second that they go to.

        Args:
            x0: a sample of the first distribution, such as noise; independent of `x1`.
            x1: one of the second, as large.
            generator: of what is drawn.

        Raises:
            PacelineError: the samples differ in shape, are empty, or hold what is no finite number.
        """
        if x0.shape != x1.shape or not x0.numel():
            raise PacelineError(
                f"Points of shape {tuple(x0.shape)} and {tuple(x1.shape)} cannot be paired: give as many of one shape."
            )
        cost = squared_distances(x0, x1)
        if not bool(cost.isfinite().all()):
            raise PacelineError("A sample holds infinite points, or none at all: leave those rows out.")
        first, second = self._pair(cost, generator)
        self._cost, self._independent = float(cost[first, second].mean()), float(cost.mean())
        return x0[first], x1[second]

    def matching(
        self,
        x0: Float[Tensor, "b *rest"],
        x1: Float[Tensor, "b *rest"],
        generator: torch.Generator | None = None,
        t: Float[Tensor, " b"] | None = None,
        noise: Float[Tensor, "b *rest"] | None = None,
    ) -> Matching:
        """Points between those of pairs, at times drawn evenly from [0, 1) unless they are given."""
        t = torch.rand(len(x0), generator=generator, dtype=x0.dtype, device=x0.device) if t is None else t
        if noise is None:
            noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        at = t.view(-1, *[1] * (x0.dim() - 1))
        width, change = self._width(at)
        return Matching(t, (1 - at) * x0 + at * x1 + width * noise, x1 - x0 + change * noise)

    def _width(self, t: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """s(t) and s'(t)."""
        return self.sigma, 0.0

    def loss(
        self,
        field: Velocity,
        x0: Float[Tensor, "b *rest"],
        x1: Float[Tensor, "b *rest"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the field's velocities on a batch that is paired here."""
        return self.error(field, self.matching(*self.pair(x0, x1, generator), generator))

    def error(self, field: Velocity, matching: Matching) -> Float[Tensor, ""]:
        """Mean squared error of the field's velocities, over all numbers alike."""
        return (field(matching.x, matching.t) - matching.velocity).square().mean()

    def sample(
        self, field: Velocity, start: Float[Tensor, "b *rest"], steps: int = 100, solver: Solver = "euler"
    ) -> Float[Tensor, "b *rest"]:
        """Where the field carries points of the first distribution, in `steps` equal steps.

        Raises:
            PacelineError: there is no step, or no such solver.
        """
        return follow(field, start, steps, solver).end

    def meters(self) -> dict[str, float]:
        """Of the last batch: mean squared length of its pairs (`coupling_cost`), and the share that pairing saved."""
        saved = 1 - self._cost / self._independent if self._independent else 0.0
        return {"coupling_cost": self._cost, "shortened": saved}


FEW_NUMBERS = 32
"""Numbers of a point up to which differences are taken one by one: beyond, a matrix product is several times faster."""


def squared_distances(x0: Float[Tensor, "m *rest"], x1: Float[Tensor, "n *rest"]) -> Float[Tensor, "m n"]:
    """Squared Euclidean distance of every point to every other, all numbers of a point taken together."""
    a, b = x0.detach().flatten(1), x1.detach().flatten(1)
    if a.shape[1] <= FEW_NUMBERS:
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
    centre = a.mean(0)  # products cancel less around 0
    a, b = a - centre, b - centre
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)
