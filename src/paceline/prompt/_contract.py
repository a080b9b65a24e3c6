"""What a prompt pipeline is: questions put to a given language model, within a budget of calls and tokens.

    answer = pipeline.run(inputs, Counted(model, Budget(calls=8)))

A pipeline changes no weights of the model that answers. It sees a `TextModel`, which goes on with texts and tells what
continuations cost; `lm/text_model.py` makes one of any model that can be opened and of an OpenAI-compatible endpoint.
Every call goes through a `Counted` model, which refuses the call that would break the budget before it is made.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from paceline.core.errors import PacelineError
from paceline.lm.written import TextModel as TextModel
from paceline.lm.written import Written as Written

Progress = Callable[[int, int, float], None]
"""Told how much of how much is done, and the last part's loss."""


@dataclass(frozen=True)
class Budget:
    """The most that a pipeline may spend on one question; None is no limit.

    Raises:
        PacelineError: a limit below 1.
    """

    calls: int | None = None
    tokens: int | None = None
    """Read and written together."""

    def __post_init__(self) -> None:
        for name, value in (("calls", self.calls), ("tokens", self.tokens)):
            if value is not None and value < 1:
                raise PacelineError(f"A budget of {value} {name} answers nothing: give at least 1.")


class Spent(PacelineError):
    """The next call would break the budget."""


@dataclass
class Counted:
    """A text model whose calls and tokens are counted and limited. Another model may be asked under the same count."""

    model: TextModel
    budget: Budget = field(default_factory=Budget)
    calls: int = 0
    tokens: int = 0
    told: Callable[[int, int], object] | None = None
    """Called after each call with both counts."""

    def complete(self, prompt: str, tokens: int, stop: Sequence[str] = ()) -> str:
        """One call.

        Raises:
            Spent: the call could break the budget; it is not made.
        """
        self._check(1, self.model.count(prompt) + tokens)
        written = self.model.complete(prompt, tokens, stop)
        self._spend(1, written.read + written.made)
        return written.text

    def nats(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """One call, of all continuations.

        Raises:
            Spent: the call could break the budget; it is not made.
        """
        self._check(1, sum(self.model.count(prompt + text) for text in continuations))
        costs, read = self.model.nats(prompt, continuations)
        self._spend(1, read)
        return costs

    def count(self, text: str) -> int:
        """The tokens of a text; asking is free."""
        return self.model.count(text)

    def _check(self, calls: int, tokens: int) -> None:
        limits = (
            ("calls", self.budget.calls, self.calls, calls), ("tokens", self.budget.tokens, self.tokens, tokens),
        )  # fmt: skip
        for name, most, spent, more in limits:
            if most is not None and spent + more > most:
                raise Spent(
                    f"The budget of {most:,} {name} is spent: {spent:,} are used and the next call needs {more:,}."
                )

    def _spend(self, calls: int, tokens: int) -> None:
        self.calls, self.tokens = self.calls + calls, self.tokens + tokens
        if self.told is not None:
            self.told(self.calls, self.tokens)


@dataclass(frozen=True)
class Answer:
    """What a pipeline answers."""

    text: str
    steps: tuple[tuple[str, str], ...] = ()
    """What was done on the way, in order: a name and its output."""
    complete: bool = True
    """Whether every step was done; False where the budget ended first, and the text is what there was by then."""


class Pipeline(ABC):
    """A procedure around a text model."""

    def prepare(self, progress: Progress | None = None) -> object:  # noqa: B027 - most learn nothing
        """Learn what must be learned before the first question; `run` does it where this was not called."""

    @abstractmethod
    def run(self, inputs: Mapping[str, str], model: Counted) -> Answer:
        """Answer from named texts, such as `question` and `document`.

        Raises:
            PacelineError: an input is missing, empty or of another kind than asked for.
        """

    def meters(self) -> dict[str, float]:
        """What it did in the last run: shares and counts by name."""
        return {}


def given(inputs: Mapping[str, str], *names: str) -> tuple[str, ...]:
    """These inputs.

    Raises:
        PacelineError: one is missing or blank.
    """
    for name in names:
        if not inputs.get(name, "").strip():
            raise PacelineError(f"The pipeline needs the input {name!r}, which is missing or blank.")
    return tuple(inputs[name] for name in names)
