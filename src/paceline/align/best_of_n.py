"""Best of n: n texts are written for a prompt, and that of the highest reward is answered.

Nothing is trained; every answer costs n texts. It diverges from the model by at most log n - (n - 1) / n nats a text,
and by just that where no two texts are alike.
"""

import math

from jaxtyping import Float, Int
from torch import Tensor

from paceline.align._contract import Choice
from paceline.core.card import Source
from paceline.core.errors import PacelineError

PAPERS = (
    Source(
        title="Learning to summarize from human feedback",
        arxiv="2009.01325",
        year=2020,
        says="choosing the best of several texts by a reward is a strong rival of training on it",
    ),
)


class BestOfN(Choice):
    """The best of several texts.

    Args:
        n: how many.

    Raises:
        PacelineError: fewer than one.
    """

    def __init__(self, n: int = 4) -> None:
        if n < 1:
            raise PacelineError(f"The best of {n} texts is none: give at least 1.")
        self.n = n

    def choose(self, rewards: Float[Tensor, "b n"]) -> Int[Tensor, " b"]:
        """See `Choice.choose`; of equals the first."""
        return rewards.argmax(1)

    @property
    def divergence(self) -> float:
        """From the model, in nats a text, at most."""
        return math.log(self.n) - (self.n - 1) / self.n


def example() -> list[Choice]:
    """Of one, and of three."""
    return [BestOfN(1), BestOfN(3)]
