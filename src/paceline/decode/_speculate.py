"""Draft and verify: several tokens are guessed, the model reads all of them at once, and keeps what it would have said.

A guess d drawn from q is accepted with probability min(1, p(d) / q(d)); at the first refusal the token is drawn from
max(p - q, 0), renormalised; after the last guess one more comes from p for free. So every token is distributed as p
(Leviathan et al. 2023, Chen et al. 2023). Under greedy choice p is the likeliest token, and the output is the model's
own, token for token.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.decode._choice import Choice
from paceline.decode._contract import Run, Strategy


@dataclass(frozen=True)
class Draft:
    """Guessed tokens, one after the other."""

    tokens: list[int]
    q: Float[Tensor, "k v"] | None = None
    """What each was drawn from; None: they were not left to chance."""


class Speculation(Strategy):
    """A strategy that drafts; what its distribution is, the choice says alone.

    Args:
        choice: what each token is drawn by.
    """

    lossless = True

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.accepted: list[int] = []
        """Of each draft of the last run."""

    @abstractmethod
    def draft(self, run: Run) -> Draft:
        """Guesses of what follows `run.ids`, whose last token the model has not read. None at all is a plain step."""

    def begin(self, run: Run) -> None:
        """Called once, when the prompt was read and before the first draft."""

    def learn(self, run: Run, draft: Draft, accepted: int, logits: Float[Tensor, "t v"]) -> None:
        """Called after each verification, with the logits after the last token and after each guess."""

    def run(self, run: Run) -> Iterator[list[int]]:
        """See `Strategy.run`."""
        self.accepted = []
        self.begin(run)
        first = int(self.choice.draw(run.logits.unsqueeze(0), run.draws))
        yield [first]
        while True:
            draft = self._room(run, self.draft(run))
            logits = run.read([run.ids[-1], *draft.tokens])
            accepted, token = verify(logits, draft, self.choice, run.draws)
            if draft.tokens:
                run.counts.drafted += len(draft.tokens)
                run.counts.accepted += accepted
                self.accepted.append(accepted)
                run.take_back(len(draft.tokens) - accepted)
            self.learn(run, draft, accepted, logits)
            yield [*draft.tokens[:accepted], token]

    def meters(self) -> dict[str, float]:
        """`accepted_per_draft`: guesses that were kept, a draft."""
        return {"accepted_per_draft": sum(self.accepted) / len(self.accepted)} if self.accepted else {}

    @staticmethod
    def _room(run: Run, draft: Draft) -> Draft:
        """No guesses beyond what is still wanted, or beyond what the model reads."""
        left = run.limit - (len(run.ids) - run.prompt) - 1
        longest: int | None = getattr(run.lm, "longest", None)
        if longest is not None:
            left = min(left, longest - len(run.ids) - 1)
        left = max(left, 0)
        return draft if len(draft.tokens) <= left else Draft(draft.tokens[:left], draft.q)


def verify(logits: Float[Tensor, "t v"], draft: Draft, choice: Choice, draws: torch.Generator) -> tuple[int, int]:
    """How many guesses are accepted, and the token after them."""
    if choice.greedy:
        likeliest = logits.argmax(-1).tolist()
        accepted = _common(draft.tokens, likeliest)
        return accepted, likeliest[accepted]
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


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
