"""Following a field from time 0 to 1, and how straight its paths were.

euler      x + h f(x, t)                                                        1 evaluation a step, error ~ h
midpoint   x + h f(x + h/2 f(x, t), t + h/2)                                    2, ~ h^2
rk4        x + h/6 (k1 + 2 k2 + 2 k3 + k4), the classical rule of Runge-Kutta   4, ~ h^4
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.errors import PacelineError

Velocity = Callable[[Tensor, Tensor], Tensor]
"""A field: x (b, ..., d) and t (b,) to velocities as x."""


@dataclass(frozen=True)
class Path:
    """What came of following a field."""

    end: Float[Tensor, "b *rest"]
    energy: float
    """Integral over time of the mean squared velocity, by the solver's own rule."""
    straightness: float
    """Energy over mean squared distance from start to end: 1 for straight paths at even speed, else above."""
    evaluations: int
    """How often the field was asked."""


@torch.no_grad()
def follow(field: Velocity, start: Float[Tensor, "b *rest"], steps: int, solver: str = "euler") -> Path:
    """Follow a field in equal steps.

    Raises:
        PacelineError: there is no step, or no such solver.
    """
    if steps < 1:
        raise PacelineError(f"A field is followed in at least one step, not {steps}.")
    if solver not in SOLVERS:
        raise PacelineError(f"There is no solver {solver!r}: give one of {', '.join(SOLVERS)}.")
    rule, x, h, energy, asked = SOLVERS[solver], start, 1 / steps, 0.0, 0

    def ask(x: Tensor, t: float) -> Tensor:
        nonlocal asked
        asked += 1
        return field(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device))

    for step in range(steps):
        x, squared = rule(ask, x, step * h, h)
        energy += h * squared
    moved = float((x - start).flatten(1).square().sum(1).mean())
    return Path(x, energy, energy / moved if moved else 1.0, asked)


Rule = Callable[[Callable[[Tensor, float], Tensor], Tensor, float, float], tuple[Tensor, float]]
"""From (field, x, t, h) to the next x, and the mean squared velocity on the way."""


def _euler(ask: Callable[[Tensor, float], Tensor], x: Tensor, t: float, h: float) -> tuple[Tensor, float]:
    k = ask(x, t)
    return x + h * k, _squared(k)


def _midpoint(ask: Callable[[Tensor, float], Tensor], x: Tensor, t: float, h: float) -> tuple[Tensor, float]:
    k = ask(x + h / 2 * ask(x, t), t + h / 2)
    return x + h * k, _squared(k)


def _rk4(ask: Callable[[Tensor, float], Tensor], x: Tensor, t: float, h: float) -> tuple[Tensor, float]:
    k1 = ask(x, t)
    k2 = ask(x + h / 2 * k1, t + h / 2)
    k3 = ask(x + h / 2 * k2, t + h / 2)
    k4 = ask(x + h * k3, t + h)
    squared = (_squared(k1) + 2 * _squared(k2) + 2 * _squared(k3) + _squared(k4)) / 6
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), squared


SOLVERS: dict[str, Rule] = {"euler": _euler, "midpoint": _midpoint, "rk4": _rk4}


def _squared(velocity: Tensor) -> float:
    return float(velocity.flatten(1).square().sum(1).mean())


def wasserstein(x: Float[Tensor, "b *rest"], y: Float[Tensor, "b *rest"]) -> float:
    """2-Wasserstein distance of two samples as large, exact: root of the mean squared length of the best pairs.

    Raises:
        PacelineError: the samples differ in size.
    """
    from scipy.optimize import linear_sum_assignment

    if len(x) != len(y):
        raise PacelineError(f"Samples of {len(x):,} and {len(y):,} points differ in size: cut the larger one.")
    a, b = (np.asarray(points.detach().flatten(1).double().cpu()) for points in (x, y))
    cost = torch.cdist(torch.from_numpy(a), torch.from_numpy(b), compute_mode="donot_use_mm_for_euclid_dist").square()
    return float(cost.numpy()[linear_sum_assignment(cost.numpy())].mean() ** 0.5)


def normalised_path_energy(path: Path, start: Float[Tensor, "b *rest"], target: Float[Tensor, "b *rest"]) -> float:
    """|energy - W2^2| / W2^2: by how much the paths take more energy than the shortest between the distributions.

    Args:
        path: what came of following the field from `start`, in many steps.
        start: a sample of the first distribution.
        target: one of the second, as large.
    """
    least = wasserstein(start, target) ** 2
    return abs(path.energy - least) / least
