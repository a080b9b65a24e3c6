"""Causal language modelling: every token after those before it, and nothing else.

sequence = x_1 ... x_t,  asked: x_2 ... x_t
"""

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.objectives._contract import Example, Objective, as_example

PAPERS = (
    Source(title="Prediction and Entropy of Printed English", year=1951, says="text is predicted from left to right"),
)


class Causal(Objective):
    """Asks for every token but the first.

    Args:
        vocab_size: tokens of the text, v.
    """

    def __init__(self, vocab_size: int = 256) -> None:
        super().__init__(vocab_size)

    @property
    def extra_tokens(self) -> int:
        """None."""
        return 0

    def length(self, window: int) -> int:
        """See `Objective.length`: t - 1."""
        if window < 2:
            raise PacelineError(f"A window of {window} tokens leaves nothing to ask: give at least 2.")
        return window - 1

    def apply(self, windows: Int[Tensor, "b t"], generator: torch.Generator) -> Example:
        """See `Objective.apply`."""
        self.length(windows.shape[1])
        asked = torch.ones_like(windows, dtype=torch.bool)
        return as_example(windows, asked)

    def restore(self, example: Example) -> Int[Tensor, "b t"]:
        """See `Objective.restore`."""
        return example.sequence


def example() -> Causal:
    """For text of five tokens."""
    return Causal(5)
