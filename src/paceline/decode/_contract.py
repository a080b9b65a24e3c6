"""What a decoding strategy is: it continues one sequence, block by block, through a `Run`.

The engine (`_generate.py`) reads the prompt, hands a `Run` to the strategy and takes blocks of tokens from it until the
limit, a stop or an end; the strategy decides what is read next. A token that was yielded has not been read yet, so the
last one is never read for nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.read_end import read_end
from paceline.core.state import LM, State
from paceline.decode._choice import Choice, largest

PIECE = 1024
"""Tokens of a prompt that are read at a time: some models make logits of all of them, and only the last are used."""


@dataclass
class Counts:
    """What generating took."""

    calls: int = 0
    """Of the model."""
    read: int = 0
    """Tokens that the model read, the prompt's included, summed over the sequences."""
    made: int = 0
    """Tokens generated."""
    reused: int = 0
    """Tokens of the prompt that were not read again."""
    drafted: int = 0
    accepted: int = 0
    helper_calls: int = 0
    """Of other models: drafts, experts, rewards."""
    seconds: float = 0.0
    """Of everything, the prompt's reading included."""
    first: float = 0.0
    """Seconds until the first token."""
    state_bytes: int = 0
    """The most that the state took."""
    more: dict[str, float] = field(default_factory=dict)
    """What the strategy tells besides."""

    @property
    def tokens_per_second(self) -> float:
        """After the first token."""
        rest = self.seconds - self.first
        return (self.made - 1) / rest if self.made > 1 and rest > 0 else 0.0


class Run:
    """One sequence being continued. Also `b` rows of it, for searches: then logits have a row for each.

    Attributes:
        lm: the model.
        ids: the prompt's tokens, and those generated so far (the engine appends them).
        prompt: how many of them are the prompt's.
        state: of the tokens read so far.
        logits: of the token after them, (v,).
        draws: for every chance.
        stop: tokens that end it.
    """

    def __init__(
        self, lm: LM, ids: Sequence[int], draws: torch.Generator, counts: Counts, limit: int,
        stop: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        self.lm, self.ids, self.draws, self.counts, self.limit = lm, list(ids), draws, counts, limit
        self.stop = stop
        self.prompt = len(self.ids)
        with enough_memory():
            self.state: State = lm.initial_state(1)
        self.logits: Float[Tensor, " v"] = torch.empty(0)

    @property
    def room(self) -> int:
        """Tokens to generate at most: what was asked for, and what the model reads."""
        longest: int | None = getattr(self.lm, "longest", None)
        return self.limit if longest is None else min(self.limit, longest - self.prompt)

    def read(self, tokens: Sequence[int]) -> Float[Tensor, "t v"]:
        """Logits after each of the next tokens."""
        logits, self.state = self.forward(torch.tensor([list(tokens)]), self.state)
        self.logits = logits[0, -1]
        return logits[0]

    def forward(self, ids: Int[Tensor, "b t"], state: State) -> tuple[Float[Tensor, "b t v"], State]:
        """The model, counted and checked; for searches that keep their own states.

        Raises:
            PacelineError: logits that are not numbers, or more than this machine's memory.
        """
        return read_counted(self.lm, ids, state, self.counts)

    def take_back(self, tokens: int) -> None:
        """Unread the last tokens."""
        self.state = self.state.rewind(tokens)


def read_counted(
    lm: LM, ids: Tensor, state: State | None, counts: Counts, end: bool = False, **more: Any
) -> tuple[Tensor, State]:
    """See `Run.forward`; logits at the end alone where that is asked; `more` are arguments that the model takes."""
    with enough_memory(), torch.no_grad():
        logits, state = read_end(lm, ids, state) if end else lm(ids, state, **more)
    counts.calls += 1
    counts.helper_calls += getattr(lm, "helper_calls", 0)
    counts.read += ids.numel()
    check_finite(logits)
    return logits, state


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turns torch's refusal of memory into ours.

    Raises:
        PacelineError: there is not enough.
    """
    try:
        yield
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise PacelineError(
            "The model and this prompt need more memory than there is: give less, or a smaller model."
        ) from error


def check_finite(logits: Float[Tensor, "b t v"]) -> None:
    """Refuse what no token can be chosen from.

    Raises:
        PacelineError: logits that are not numbers.
    """
    if not largest(logits[:, -1]).isfinite().all():
        raise PacelineError("The model returned logits that are not finite: its weights are damaged or it diverged.")


class Strategy(ABC):
    """A way to choose tokens.

    Attributes:
        lossless: whether it gives what the model's own distribution gives under the same `Choice`: token for token
            where that is greedy, in distribution otherwise.
        streams: whether tokens are final when they are yielded (a search gives them at its end).
        keep: how many tokens it may take back.
    """

    lossless: bool = False
    streams: bool = True
    keep: int = 0

    def prepare(self, lm: LM) -> LM:
        """The model to decode with: itself, or one that wraps it.

        Raises:
            PacelineError: the strategy cannot work with this model; says why.
        """
        return lm

    @abstractmethod
    def run(self, run: Run) -> Iterator[list[int]]:
        """Blocks of next tokens, for as long as they are asked for."""

    def meters(self) -> dict[str, float]:
        """What it did in the last run."""
        return {}


class Stepwise(Strategy):
    """A strategy that chooses one token at a time from the logits, so that sequences go side by side."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice

    def run(self, run: Run) -> Iterator[list[int]]:
        """See `Strategy.run`."""
        while True:
            token = int(self.choice.draw(run.logits.unsqueeze(0), run.draws))
            yield [token]
            run.read([token])


def compatible(lm: LM, helper: LM, role: str) -> None:
    """Refuse a helper of another vocabulary.

    Raises:
        PacelineError: naming both.
    """
    if lm.vocab_size != helper.vocab_size:
        raise PacelineError(
            f"The model has {lm.vocab_size:,} tokens and the {role} {helper.vocab_size:,}: both need one tokenizer."
        )
