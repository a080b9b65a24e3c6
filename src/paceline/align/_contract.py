"""What an objective of alignment is.

`Online` objectives see texts that the model wrote, token by token, with how much better each token turned out than was
expected. `Pairwise` ones see pairs of texts, of which one was preferred. A `Choice` trains nothing: it picks one of
several texts. All know the reference, the model as it was: at the same probabilities their loss is a known number, and
where the best policy can be written down, they come to it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from paceline.core.errors import PacelineError


@dataclass(frozen=True)
class Steps:
    """Written tokens, where `mask` holds, at their places in texts that are padded behind their end."""

    old: Float[Tensor, "b t"]
    """Log-probability under the policy that wrote them."""
    reference: Float[Tensor, "b t"]
    """Under the model as it was."""
    advantages: Float[Tensor, "b t"]
    mask: Bool[Tensor, "b t"]


class Online(ABC):
    """Learns from texts that the policy wrote.

    Attributes:
        price: what a nat of divergence from the reference costs within the rewards, 0 where the loss sees to it.
    """

    price: float = 0.0

    @abstractmethod
    def loss(self, policy: Float[Tensor, "b t"], steps: Steps) -> Float[Tensor, ""]:
        """What is minimised.

        Args:
            policy: log-probabilities of the written tokens, with gradients.
            steps: what is known of them.
        """


class Pairwise(ABC):
    """Learns from preferences."""

    @abstractmethod
    def loss(self, chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"]) -> Float[Tensor, ""]:
        """What is minimised, given log pi(y | x) - log reference(y | x) of the texts of each pair."""


class Choice(ABC):
    """Picks one of several texts by their rewards.

    Attributes:
        n: how many are written for each prompt.
    """

    n: int

    @abstractmethod
    def choose(self, rewards: Float[Tensor, "b n"]) -> Int[Tensor, " b"]:
        """Which text is answered."""


def mean(x: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, ""]:
    """Over the tokens where the mask holds."""
    return (x * mask).sum() / mask.sum().clamp_min(1)


def positive(name: str, **numbers: float) -> None:
    """Refuse settings that are not above 0.

    Raises:
        PacelineError: naming the method and the setting.
    """
    for key, value in numbers.items():
        if not value > 0:
            raise PacelineError(f"{name}: {key} must be above 0, not {value}.")
