"""Prefix language modelling: a first part of the text is given, the rest is asked for.

    sequence = [mode] x_1 ... x_t,  asked: x_{p+1} ... x_t,  p uniform over 1 ... t - 1

or over its last values, so that `rate` of the text is asked for on average. In a decoder the prefix needs no separator.
Departure: where a decoder reads a prefix both ways (`Mixer.looks_ahead`), nothing here tells it how long that is.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.objectives._contract import Example, Objective, as_example

PAPERS = (
    Source(
        title="Generating Wikipedia by Summarizing Long Sequences",
        arxiv="1801.10198",
        year=2018,
        says="a decoder alone, given a first part of a sequence, learns to write the rest",
    ),
)


class PrefixLM(Objective):
    """Asks for what follows a prefix of any length.

    Args:
        vocab_size: tokens of the text, v.
        rate: mean share of the text that is asked for, 0 < rate <= 0.5.
        mode: token in front: `S`, or empty for none.

    Raises:
        PacelineError: a rate out of its range.
    """

    def __init__(self, vocab_size: int = 256, rate: float = 0.5, mode: str = "") -> None:
        super().__init__(vocab_size)
        if not 0 < rate <= 0.5:
            raise PacelineError(f"No prefix leaves {rate} of a text to ask for on average: give at most 0.5.")
        self.rate, self.first = rate, self.mode(mode) if mode else None

    def length(self, window: int) -> int:
        """See `Objective.length`."""
        if window < 2:
            raise PacelineError(f"A window of {window} tokens cannot be prefix and rest: give at least 2.")
        return window - 1 + (self.first is not None)

    def apply(self, windows: Int[Tensor, "b t"], generator: torch.Generator) -> Example:
        """See `Objective.apply`."""
        batch, window = windows.shape
        self.length(window)
        shortest = min(max(1, round((1 - 2 * self.rate) * (window - 1))), window - 1)
        prefix = torch.randint(shortest, window, (batch, 1), generator=generator)
        asked = torch.arange(window) >= prefix
        if self.first is None:
            return as_example(windows, asked)
        head = torch.full((batch, 1), self.first)
        return as_example(torch.cat((head, windows), 1), torch.nn.functional.pad(asked, (1, 0)))

    def restore(self, example: Example) -> Int[Tensor, "b t"]:
        """See `Objective.restore`."""
        return example.sequence[:, self.first is not None :]


def example() -> PrefixLM:
    """For text of five tokens."""
    return PrefixLM(5, mode="S")
