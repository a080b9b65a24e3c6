"""Beam search: the likeliest continuation that keeping a few at each step finds.

    score(y) = sum_t log p(y_t | x, y_<t) / |y| ** length_penalty

`_beams.py` says when a beam is finished, and when the search is. Works on every model whose state selects rows,
recurrent ones too. Cost: a call of `width` rows a step.
"""

from collections.abc import Iterator

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.state import LM
from paceline.decode._beams import Beams, Hypothesis
from paceline.decode._contract import Run, Strategy

PAPERS = (
    Source(title="The Harpy Speech Recognition System", year=1976, says="beam search"),
    Source(title="Sequence to Sequence Learning with Neural Networks", arxiv="1409.3215", year=2014),
)


class Beam(Strategy):
    """Beam search.

    Args:
        width: beams; 1 is greedy.
        length_penalty: 0 ranks by probability, 1 by the mean log-probability of a token.

    Attributes:
        hypotheses: what the last run found, best first; the best is what it yielded.

    Raises:
        PacelineError: a width below 1.
    """

    streams = False

    def __init__(self, width: int = 4, length_penalty: float = 1.0) -> None:
        if width < 1:
            raise PacelineError(f"beam: width must be at least 1, not {width}.")
        self.width, self.length_penalty = width, length_penalty
        self.hypotheses: list[Hypothesis] = []

    def run(self, run: Run) -> Iterator[list[int]]:
        """See `Strategy.run`."""
        beams = Beams(run, self.width, self.length_penalty)
        while beams.open:
            beams.choose()
        self.hypotheses = beams.finished
        yield list(self.hypotheses[0].tokens)

    def meters(self) -> dict[str, float]:
        """`log_probability`: of what was yielded, the model's own."""
        return {"log_probability": self.hypotheses[0].log_probability} if self.hypotheses else {}


def example(lm: LM) -> list[Strategy]:
    """Ranked by the mean, and by probability."""
    return [Beam(width=3), Beam(width=2, length_penalty=0.0)]


def greedy_limit(lm: LM) -> list[Strategy]:
    """One beam."""
    return [Beam(width=1)]
