"""AWR: the likelihood of what was written, weighted by the exponential of its advantage.

    loss = - mean of exp(A / strength) log pi(a | s)

Where every action was seen it has APA's best policy, but moves only towards what was written, and its weights grow
without bound. The rival that APA's authors call AWR (their `adv_coeff_log` = 1 / strength).
"""

from jaxtyping import Float
from torch import Tensor

from paceline.align._contract import Online, Steps, mean, positive
from paceline.core.card import Source

PAPERS = (
    Source(
        title="Advantage-Weighted Regression: Simple and Scalable Off-Policy Reinforcement Learning",
        arxiv="1910.00177",
        year=2019,
        says="learns a policy by supervised steps alone, on actions weighted by how well they did",
    ),
)


class AWR(Online):
    """Advantage-weighted regression.

    Args:
        strength: an advantage of so much has the weight e.

    Raises:
        PacelineError: it is not above 0.
    """

    def __init__(self, strength: float = 2.0) -> None:
        positive("AWR", strength=strength)
        self.strength = strength

    def loss(self, policy: Float[Tensor, "b t"], steps: Steps) -> Float[Tensor, ""]:
        """See `Online.loss`."""
        return -mean((steps.advantages / self.strength).exp() * policy, steps.mask)


def example() -> list[Online]:
    """As the authors of APA set it."""
    return [AWR()]
