"""DPO: of each pair the preferred text's log-ratio to the model as it was is to exceed the other's.

    loss = - mean of log sigmoid(beta ((log pi(y_w) - log pi_init(y_w)) - (log pi(y_l) - log pi_init(y_l))))

whose best policy is pi_init exp(reward / beta), for the reward under which the preferences are likeliest. Nothing is
sampled, and there is no model of the reward.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paceline.align._contract import Pairwise, positive
from paceline.core.card import Source

PAPERS = (
    Source(
        title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        arxiv="2305.18290",
        year=2023,
        says="learns from preferences as well as PPO does, by classification alone",
    ),
)


class DPO(Pairwise):
    """Direct preference optimisation.

    Args:
        beta: of the first model's hold, in nats of reward.

    Raises:
        PacelineError: it is not above 0.
    """

    def __init__(self, beta: float = 0.1) -> None:
        positive("DPO", beta=beta)
        self.beta = beta

    def loss(self, chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """See `Pairwise.loss`."""
        return -functional.logsigmoid(self.beta * (chosen - rejected)).mean()


def example() -> list[Pairwise]:
    """A weak and a strong hold."""
    return [DPO(), DPO(beta=1.0)]
