"""What a prompt-level method is: it decides how a prompt is read; a model prepared by it decodes as ever.

`reader.prepare(lm)` is an LM whose first read (`state` None, or of no tokens) goes through `read_prompt`; later ones
go on from there. So a question-blind use is reading the context first and the question after it. The engine gives it a
prompt as a whole, as to any model with `looks_ahead`. The state's `length` counts the tokens that the model has really
read.
"""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.state import LM, State


class Reader(ABC):
    """A way to read a prompt.

    Attributes:
        blind: as a policy's: whether what is kept does not depend on the prompt's last tokens.
    """

    blind: bool = True

    def prepare(self, lm: LM) -> "Reading":
        """The model, reading prompts this way.

        Raises:
            PacelineError: it cannot; says why.
        """
        self.check(lm)
        return Reading(lm, self)

    @abstractmethod
    def check(self, lm: LM) -> None:
        """Refuse a model that cannot read this way.

        Raises:
            PacelineError: saying what it lacks.
        """

    @abstractmethod
    def read_prompt(self, lm: LM, ids: Int[Tensor, "b t"]) -> tuple[Float[Tensor, "b 1 v"], State]:
        """Logits after the prompt, and the state to go on from."""

    def read_on(self, lm: LM, ids: Int[Tensor, "b t"], state: State) -> tuple[Float[Tensor, "b t v"], State]:
        """What follows the prompt."""
        return lm(ids, state)

    def meters(self) -> dict[str, float]:
        """What it did with the last prompt: shares and counts by name."""
        return {}


class Reading:
    """An LM that reads its prompts through a `Reader`."""

    looks_ahead = True

    def __init__(self, lm: LM, reader: Reader) -> None:
        self.lm, self.reader, self.vocab_size = lm, reader, lm.vocab_size
        self.longest: int | None = getattr(lm, "longest", None)

    def initial_state(self, batch: int) -> State:
        """The empty past of `batch` sequences."""
        return self.lm.initial_state(batch)

    def read_prompt(self, ids: Int[Tensor, "b t"]) -> tuple[Float[Tensor, "b 1 v"], State]:
        """See `Reader.read_prompt`."""
        return self.reader.read_prompt(self.lm, ids)

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None) -> tuple[Tensor, State]:
        """Logits and state; of a prompt, the last logits alone."""
        if state is None or state.length == 0:
            logits, after = self.read_prompt(ids)
            return logits, after.keeping(0 if state is None else state.keep)
        return self.reader.read_on(self.lm, ids, state)
