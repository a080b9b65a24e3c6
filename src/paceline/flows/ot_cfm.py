"""OT-CFM: conditional flow matching between points that minibatch optimal transport has paired.

    pairing = argmin over permutations p of  sum_i |x0_i - x1_p(i)|^2,    then as `cfm`

Paths that do not cross leave the field little to average over: it is straighter, and few steps follow it. The pairing
of b points takes up to b^3 operations and b^2 numbers (scipy's assignment, on the CPU): about 5 ms at b = 256.

Departure: the authors draw b pairs from the optimal plan with replacement; here each point is used once. The plan of
equal weights is a permutation (up to equals), so every pair comes as often on average, with less noise.
"""

import torch
from torch import Tensor

from paceline.core.card import Paper
from paceline.flows._contract import Flow

PAPERS = (
    Paper(
        title="Improving and generalizing flow-based generative models with minibatch optimal transport",
        arxiv="2302.00482",
        year=2023,
        says="pairs from minibatch optimal transport give straighter flows, which fewer steps follow",
    ),
)


class OTCFM(Flow):
    """Straight paths between points paired by minibatch optimal transport.

    Args:
        sigma: standard deviation around the path, 0 or more.

    Raises:
        PacelineError: sigma is below 0.
    """

    def _pair(self, cost: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(cost.double().cpu().numpy())
        return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)


def example() -> list[Flow]:
    """On the path, and around it."""
    return [OTCFM(), OTCFM(sigma=0.1)]
