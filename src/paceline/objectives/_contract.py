"""The contract of the family: an objective makes a sequence for a decoder out of a window of text.

    window (t tokens)  ->  sequence (n + 1 tokens),  inputs = sequence[:-1],  targets = sequence[1:] where asked

n depends on t and the objective alone, so that batches are tensors; what a sequence does not need is padded with END at
its right, which is asked nothing. Nothing of the window is lost: `restore` gives it back.

The vocabulary is extended behind its last token: END, which closes what is hidden and what is shown, then mode tokens
([R], [S], [X]), then sentinels, of which each stands for a hidden span.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from paceline.core.errors import PacelineError

IGNORE = -100
"""Target of a position where nothing is asked."""
MODES = ("R", "S", "X")
"""Regular denoising, sequential denoising, extreme denoising."""


@dataclass(frozen=True)
class Example:
    """Sequences, and what is asked of them."""

    inputs: Int[Tensor, "b n"]
    targets: Int[Tensor, "b n"]
    """The token that follows each position, or IGNORE."""
    mask: Bool[Tensor, "b n"]
    """Where one is asked."""
    last: Int[Tensor, " b"]
    """The last token of each sequence, which no input shows."""

    @property
    def sequence(self) -> Int[Tensor, "b m"]:
        """What was made of each window, m = n + 1 tokens."""
        return torch.cat((self.inputs, self.last.unsqueeze(1)), 1)


class Objective(ABC):
    """Makes sequences of windows.

    Args:
        vocab_size: tokens of the text, v.
        sentinels: spans that one window can hide at most.

    Raises:
        PacelineError: a size below 1, or below 0 for the sentinels.
    """

    def __init__(self, vocab_size: int = 256, sentinels: int = 0) -> None:
        if vocab_size < 1 or sentinels < 0:
            raise PacelineError(f"A vocabulary of {vocab_size} tokens and {sentinels} sentinels makes no sense.")
        self.vocab_size, self.sentinels = vocab_size, sentinels

    @property
    def extra_tokens(self) -> int:
        """Tokens behind the text's own: END, modes and sentinels; 0 where none is needed."""
        return 1 + len(MODES) + self.sentinels

    @property
    def end(self) -> int:
        """The token END."""
        return self.vocab_size

    def mode(self, name: str) -> int:
        """The token of a mode.

        Raises:
            PacelineError: there is no such mode.
        """
        if name not in MODES:
            raise PacelineError(f"There is no mode {name!r}: modes are {', '.join(MODES)}.")
        return self.vocab_size + 1 + MODES.index(name)

    def sentinel(self, number: int) -> int:
        """The token that stands for hidden span `number`, from 0."""
        return self.vocab_size + 1 + len(MODES) + number

    @abstractmethod
    def length(self, window: int) -> int:
        """Positions of what is made of windows of so many tokens, n.

        Raises:
            PacelineError: the window is too short, or would need more sentinels than there are.
        """

    @abstractmethod
    def apply(self, windows: Int[Tensor, "b t"], generator: torch.Generator) -> Example:
        """The sequences, a function of the windows and of the generator's state alone."""

    @abstractmethod
    def restore(self, example: Example) -> Int[Tensor, "b t"]:
        """The windows that the sequences were made of."""

    def loss(self, logits: Float[Tensor, "b n v"], example: Example) -> Float[Tensor, ""]:
        """Mean cross-entropy of what is asked, in nats a token."""
        return functional.cross_entropy(logits.flatten(0, 1), example.targets.flatten(), ignore_index=IGNORE)


def as_example(sequence: Int[Tensor, "b m"], asked: Bool[Tensor, "b m"]) -> Example:
    """What a decoder is given for sequences of which some tokens are asked (never the first)."""
    targets = sequence[:, 1:].masked_fill(~asked[:, 1:], IGNORE)
    return Example(sequence[:, :-1], targets, asked[:, 1:], sequence[:, -1])
