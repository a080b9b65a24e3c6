"""Prompt lookup: what followed the last few tokens when they occurred before is guessed to follow again.

The longest suffix of at most `longest` tokens that occurred earlier is looked up, its latest occurrence first, and the
`guesses` tokens after it are verified at once. No other model, nothing to train; text without repetition costs next
to nothing.
"""

from paceline.core.card import Source
from paceline.core.state import LM
from paceline.decode._choice import Choice
from paceline.decode._contract import Run, Strategy
from paceline.decode._speculate import Draft, Speculation, at_least_one

PAPERS = (
    Source(
        title="Inference with Reference: Lossless Acceleration of Large Language Models", arxiv="2304.04487", year=2023
    ),
)


class Lookup(Speculation):
    """Speculation from the text itself.

    Args:
        guesses: tokens of a draft. Three and the token before them are read at little more than the cost of one.
        longest: tokens of the suffix that is looked up, at most.
        patience: refused drafts in a row before a pause.
        temperature: of the choice; 0 is greedy.
        top_p: of the choice.

    Raises:
        PacelineError: a number below 1, or a choice outside its range.
    """

    def __init__(
        self, guesses: int = 3, longest: int = 3, patience: int = 2, temperature: float = 0.0, top_p: float = 1.0
    ) -> None:
        super().__init__(Choice(temperature, top_p=top_p), patience)
        at_least_one(guesses=guesses, longest=longest)
        self.guesses, self.longest = guesses, longest
        self.keep = guesses + 1

    def begin(self, run: Run) -> None:
        """See `Speculation.begin`."""
        self._places: dict[tuple[int, ...], int] = {}
        self._known = 0

    def draft(self, run: Run, room: int) -> Draft:
        """See `Speculation.draft`."""
        ids = run.ids
        self._index(ids)
        for size in range(min(self.longest, len(ids) - 1), 0, -1):
            place = self._places.get(tuple(ids[-size:]))
            if place is not None:
                return Draft(ids[place : place + self.guesses])
        return Draft([])

    def _index(self, ids: list[int]) -> None:
        """Where each n-gram that ends before the last token was followed; later places win."""
        for end in range(max(self._known, 1), len(ids)):
            for size in range(1, min(self.longest, end) + 1):
                self._places[tuple(ids[end - size : end])] = end
        self._known = len(ids)


def example(lm: LM) -> list[Strategy]:
    """Greedy, and drawn."""
    return [Lookup(guesses=3), Lookup(guesses=4, temperature=0.9, top_p=0.9)]
