"""PPO: advantages times the ratio to the policy that wrote, no further than a clip.

    loss = - mean of min(r A, clip(r, 1 - c, 1 + c) A),   r = pi(a | s) / pi_old(a | s)
    reward of each token   - price (log pi_old(a | s) - log pi_init(a | s)), and the text's own at its end

as in InstructGPT and trlx. The rival of APA. The price is fixed; some codes steer it to a set divergence.
"""

from jaxtyping import Float
from torch import Tensor, minimum

from paceline.align._contract import Online, Steps, mean, positive
from paceline.core.card import Source

PAPERS = (
    Source(
        title="Proximal Policy Optimization Algorithms",
        arxiv="1707.06347",
        year=2017,
        says="improves a policy by several small steps on what it did, none of them too far",
    ),
)


class PPO(Online):
    """Proximal policy optimisation.

    Args:
        price: of a nat of divergence from the first model, in standard deviations of the reward.
        clip: how far a ratio counts.

    Raises:
        PacelineError: a setting is not above 0.
    """

    def __init__(self, price: float = 0.05, clip: float = 0.2) -> None:
        positive("PPO", price=price, clip=clip)
        self.price, self.clip = price, clip

    def loss(self, policy: Float[Tensor, "b t"], steps: Steps) -> Float[Tensor, ""]:
        """See `Online.loss`."""
        ratio = (policy - steps.old).exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        return -mean(minimum(ratio * steps.advantages, clipped * steps.advantages), steps.mask)


def example() -> list[Online]:
    """With the usual clip."""
    return [PPO()]
