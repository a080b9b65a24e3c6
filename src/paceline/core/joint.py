"""The states of several models that read the same tokens, as one: what a combination of models remembers."""

from dataclasses import dataclass, replace

from jaxtyping import Int
from torch import Tensor

from paceline.core.state import State


@dataclass(frozen=True)
class Joint(State):
    """Several models' states, in the order of `parts`; everything that a state can, each of them does."""

    parts: tuple[State, ...] = ()

    @staticmethod
    def of_parts(parts: tuple[State, ...], of: str) -> "Joint":
        """The states of models that have read as many tokens."""
        return Joint((), parts[0].length, of=of, parts=parts)

    @property
    def nbytes(self) -> int:
        """Of all."""
        return sum(part.nbytes for part in self.parts)

    @property
    def batch(self) -> int:
        """Sequences."""
        return self.parts[0].batch

    @property
    def kept(self) -> int:
        """As many as all of them keep."""
        return min(part.kept for part in self.parts)

    def keeping(self, tokens: int) -> "Joint":
        """See `State.keeping`."""
        return self._each(tuple(part.keeping(tokens) for part in self.parts))

    def rewind(self, tokens: int) -> "Joint":
        """See `State.rewind`."""
        return self._each(tuple(part.rewind(tokens) for part in self.parts))

    def fork(self) -> "Joint":
        """See `State.fork`."""
        return self._each(tuple(part.fork() for part in self.parts))

    def select(self, rows: Int[Tensor, " k"]) -> "Joint":
        """See `State.select`."""
        return self._each(tuple(part.select(rows) for part in self.parts))

    def _each(self, parts: tuple[State, ...]) -> "Joint":
        return replace(self, parts=parts, length=parts[0].length)
