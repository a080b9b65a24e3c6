"""APA: the log-ratio to the model as it was is fitted to the advantage, by squared error.

    loss = mean over written tokens of (log pi(a | s) - log pi_init(a | s) - A(s, a) / strength)^2

At the best policy pi = pi_init exp(A / strength), up to what must sum to one: as near to the first model as the
strength says, in one loss, with no ratio to clip and no price of divergence in the reward. The gradient stays bounded
where a probability goes to 0, unlike that of weighted likelihood (`awr`).

As in the authors' code advantages are of generalised estimation, whitened over a batch, and the reference is the
model at the very start, not the one of the last round (theirs: `adv_coeff_sq` = 1 / strength).
"""

from jaxtyping import Float
from torch import Tensor

from paceline.align._contract import Online, Steps, mean, positive
from paceline.core.card import Paper

PAPERS = (
    Paper(
        title="Fine-Tuning Language Models with Advantage-Induced Policy Alignment",
        arxiv="2306.02231",
        year=2023,
        says="earns more reward than PPO at the same samples, and keeps nearer to the model as it was, more steadily",
    ),
)


class APA(Online):
    """Advantage-induced policy alignment.

    Args:
        strength: of the first model's hold, lambda; an advantage of one standard deviation is worth 1 / strength nats.
            Default: the authors'.

    Raises:
        PacelineError: it is not above 0.
    """

    def __init__(self, strength: float = 0.1) -> None:
        positive("APA", strength=strength)
        self.strength = strength

    def loss(self, policy: Float[Tensor, "b t"], steps: Steps) -> Float[Tensor, ""]:
        """See `Online.loss`."""
        return mean((policy - steps.reference - steps.advantages / self.strength).square(), steps.mask)


def example() -> list[Online]:
    """A weak and a strong hold."""
    return [APA(strength=4.0), APA(strength=1.0)]
