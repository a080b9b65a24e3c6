"""Draft and verify: several tokens are guessed, the model reads all of them at once, and keeps what it would have said.

A guess d drawn from q is accepted with probability min(1, p(d) / q(d)); at the first refusal the token is drawn from
max(p - q, 0), renormalised; after the last guess one more comes from p for free. So every token is distributed as p
(Leviathan et al. 2023, Chen et al. 2023). Under greedy choice p is the likeliest token, and the output is the model's
own, token for token.

Where guesses fail, it guesses less: after `patience` drafts in a row of which nothing was kept it pauses for twice as
many plain steps as the last time, so that text that cannot be guessed costs next to nothing.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.decode._choice import Choice, likeliest
from paceline.decode._contract import Run, Strategy

BEHIND = 16
"""Tokens to read anew before which a draft waits."""


@dataclass(frozen=True)
class Draft:
    """Guessed tokens, one after the other."""

    tokens: list[int]
    q: Float[Tensor, "k v"] | None = None
    """What each was drawn from; None: they were not left to chance."""

    def cut(self, room: int) -> "Draft":
        """The first `room` guesses."""
        return self if len(self.tokens) <= room else Draft(self.tokens[:room], self.q)


class Speculation(Strategy):
    """A strategy that drafts; what its distribution is, the choice says alone.

    Args:
        choice: what each token is drawn by.
        patience: refused drafts in a row before a pause.

    Raises:
        PacelineError: the patience is below 1.
    """

    lossless = True

    def __init__(self, choice: Choice, patience: int = 2) -> None:
        at_least_one(patience=patience)
        self.choice, self.patience = choice, patience
        self.accepted: list[int] = []
        """Of each draft of the last run."""

    @abstractmethod
    def draft(self, run: Run, room: int) -> Draft:
        """Guesses of what follows `run.ids`, whose last token the model has not read. None at all is a plain step.

        Args:
            run: what is continued.
            room: guesses beyond it are cut off.
        """

    def begin(self, run: Run) -> None:
        """Called once, when the prompt was read and before the first draft."""

    def read(self, run: Run, draft: Draft) -> Float[Tensor, "t v"]:
        """The model's logits after the last token and after each guess, all of which it has read then."""
        return run.read([run.ids[-1], *draft.tokens])

    def judge(self, run: Run, draft: Draft) -> list[int]:
        """The guesses that are kept, and the token after them; the model has read all but that."""
        logits = self.read(run, draft)
        accepted, token = verify(logits, draft, self.choice, run.draws)
        run.take_back(len(draft.tokens) - accepted)
        return [*draft.tokens[:accepted], token]

    def run(self, run: Run) -> Iterator[list[int]]:
        """See `Strategy.run`."""
        self.accepted = []
        self.begin(run)
        first = int(self.choice.draw(run.logits.unsqueeze(0), run.draws))
        yield [first]
        refused = pause = length = 0
        while True:
            room = 0 if pause or self._behind(run) else self._room(run)
            pause = max(pause - 1, 0)
            draft = self.draft(run, room).cut(room) if room else Draft([])
            kept = self.judge(run, draft)
            if draft.tokens:
                run.counts.drafted += len(draft.tokens)
                run.counts.accepted += len(kept) - 1
                self.accepted.append(len(kept) - 1)
                refused = 0 if len(kept) > 1 else refused + 1
                length = 0 if len(kept) > 1 else length
                if refused >= self.patience:
                    length = pause = min(2 * length or 4, 64)
            yield kept

    def meters(self) -> dict[str, float]:
        """`accepted_per_draft`: guesses that were kept, a draft."""
        return {"accepted_per_draft": sum(self.accepted) / len(self.accepted)} if self.accepted else {}

    @staticmethod
    def _behind(run: Run) -> bool:
        """Whether a recurrent model has much to read anew: each refusal adds to it, and a plain step ends it."""
        return run.state.pending is not None and run.state.pending.shape[1] >= BEHIND

    @staticmethod
    def _room(run: Run) -> int:
        """Guesses that are still wanted and that the model can read."""
        return max(run.room - (len(run.ids) - run.prompt) - 1, 0)


def verify(logits: Float[Tensor, "t v"], draft: Draft, choice: Choice, draws: torch.Generator) -> tuple[int, int]:
    """How many guesses are accepted, and the token after them."""
    if choice.greedy:
        said = likeliest(logits).tolist()
        accepted = _common(draft.tokens, said)
        return accepted, said[accepted]
    p = choice.probabilities(logits)
    for index, token in enumerate(draft.tokens):
        q = None if draft.q is None else draft.q[index]
        ratio = float(p[index, token]) if q is None else float(p[index, token] / q[token])
        if float(torch.rand((), dtype=torch.float64, generator=draws)) < ratio:
            continue
        left = p[index].clone()
        if q is None:
            left[token] = 0
        else:
            left = (left - q).clamp_min(0)
        return index, int(torch.multinomial(left, 1, generator=draws))
    return len(draft.tokens), int(torch.multinomial(p[len(draft.tokens)], 1, generator=draws))


def guess(
    logits: Float[Tensor, " v"], choice: Choice, draws: torch.Generator
) -> tuple[int, Float[Tensor, " v"] | None]:
    """A token by the choice, and what it was drawn from; None where that is greedy."""
    if choice.greedy:
        return int(logits.argmax()), None
    q = choice.probabilities(logits)
    return int(torch.multinomial(q, 1, generator=draws)), q


def drafted(guesses: Sequence[tuple[int, Tensor | None]]) -> Draft:
    """The draft of what `guess` gave, one after the other."""
    q = [q for _, q in guesses if q is not None]
    return Draft([token for token, _ in guesses], torch.stack(q) if q else None)


def at_least_one(**numbers: int) -> None:
    """Refuse counts below 1.

    Raises:
        PacelineError: naming the first.
    """
    for name, value in numbers.items():
        if value < 1:
            raise PacelineError(f"{name} must be at least 1, not {value}.")


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
