"""Conditional flow matching with independent coupling (I-CFM): every point may go to every other.

    (x0, x1) ~ q0 x q1,   x_t = (1 - t) x0 + t x1 + sigma e,   u = x1 - x0

The two samples are taken row by row as they come, for which they must be independent. Costs nothing beyond the field.
With noise as the first distribution and sigma = 0 this is also rectified flow's first round.
"""

import torch
from torch import Tensor

from paceline.core.card import Source
from paceline.flows._contract import Flow

PAPERS = (
    Source(
        title="Improving and generalizing flow-based generative models with minibatch optimal transport",
        arxiv="2302.00482",
        year=2023,
        says="any two distributions, paired at random, are joined by regression on straight paths",
    ),
)


class CFM(Flow):
    """Straight paths between points paired at random.

    Args:
        sigma: standard deviation around the path, 0 or more.

    Raises:
        PacelineError: sigma is below 0.
    """

    def _pair(self, cost: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(cost), device=cost.device)
        return rows, rows


def example() -> list[Flow]:
    """On the path, and around it."""
    return [CFM(), CFM(sigma=0.1)]
