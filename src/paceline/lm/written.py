"""What a language model is to those who see texts alone, wherever it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Written:
    """What one call gave."""

    text: str
    read: int
    """Tokens of the prompt."""
    made: int
    """Tokens of the text."""


@runtime_checkable
class TextModel(Protocol):
    """A language model of texts."""

    def complete(self, prompt: str, tokens: int, stop: Sequence[str] = ()) -> Written:
        """Go on with a prompt, greedily.

        Args:
            prompt: any text.
            tokens: the most that are written.
            stop: texts before which it ends.
        """
        ...

    def nats(self, prompt: str, continuations: Sequence[str]) -> tuple[list[float], int]:
        """What each continuation of a prompt costs, in nats, and how many tokens were read for that.

        Raises:
            PacelineError: the model does not tell, as many endpoints do not.
        """
        ...

    def count(self, text: str) -> int:
        """The tokens of a text; where the model cannot tell, never fewer than they are."""
        ...
