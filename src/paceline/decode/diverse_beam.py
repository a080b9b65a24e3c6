"""Diverse beam search: groups of beams, each kept from saying what the groups before it said.

    Y_t^g = the width / groups likeliest extensions of Y_<t^g by  log p(y_t | y_<t) - lambda sum_{h < g} D(y_t, Y^h)

group by group within a step, so that one group's choice costs the next. D counts how often the earlier groups chose the
token y_t at this step (Hamming, `ngram=0`), or how often the n-gram that y_t completes stands anywhere in their texts
(`ngram=n`). Penalties add up along a beam, as in the authors' code, and rank within a group; across groups the model's
own score ranks, so that the first group, which is never penalised, competes fairly. A beam that ended makes room for
the next likeliest, where the authors' code lets it run on at a very low score. With one group it is beam search.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.state import LM
from paceline.decode._beams import Beams, Hypothesis, ranked
from paceline.decode._contract import Run, Strategy

PAPERS = (
    Paper(
        title="Diverse Beam Search: Decoding Diverse Solutions from Neural Sequence Models",
        arxiv="1610.02424",
        year=2016,
        says="Groups of beams that penalise one another's tokens find more diverse texts than beam search, and a best "
        "one that is no worse, at about the same cost.",
    ),
)


class DiverseBeam(Strategy):
    """Diverse beam search.

    Args:
        width: beams of all groups together.
        groups: how many groups; `width` must be a multiple.
        diversity: lambda, what saying the same costs, in nats.
        ngram: 0 counts the same token at the same step; n >= 1 the same n-gram anywhere.
        length_penalty: as in `beam`.

    Attributes:
        hypotheses: what the last run found in all groups, best by the model's own score first; the best is what it
            yielded.
        groups_found: the same group by group, by the score that ranked there.

    Raises:
        PacelineError: a width that is no multiple of the groups, or numbers below their range.
    """

    streams = False

    def __init__(
        self, width: int = 6, groups: int = 3, diversity: float = 0.5, ngram: int = 0, length_penalty: float = 1.0
    ) -> None:
        if groups < 1 or width < groups or width % groups:
            raise PacelineError(f"diverse_beam: width must be a multiple of groups, not {width} for {groups}.")
        if diversity < 0 or ngram < 0:
            raise PacelineError(f"diverse_beam: diversity and ngram must be at least 0, not {diversity} and {ngram}.")
        self.width, self.groups, self.diversity, self.ngram = width, groups, diversity, ngram
        self.length_penalty = length_penalty
        self.hypotheses: list[Hypothesis] = []
        self.groups_found: list[list[Hypothesis]] = []

    def run(self, run: Run) -> Iterator[list[int]]:
        """See `Strategy.run`."""
        groups = [Beams(run, self.width // self.groups, self.length_penalty) for _ in range(self.groups)]
        while any(group.open for group in groups):
            chosen: Counter[int] = Counter()
            for number, group in enumerate(groups):
                if group.open:
                    penalty = self._penalty(group, chosen, groups[:number], run.lm.vocab_size)
                    chosen.update(group.choose(penalty))
        self.groups_found = [group.finished for group in groups]
        self.hypotheses = ranked([self._by_the_model(found) for group in groups for found in group.finished])
        yield list(self.hypotheses[0].tokens)

    def _penalty(
        self, group: Beams, chosen: Counter[int], before: list[Beams], vocabulary: int
    ) -> Float[Tensor, "#b v"]:
        if not self.ngram:
            penalty = torch.zeros(1, vocabulary, dtype=torch.float64)
            for token, times in chosen.items():
                penalty[0, token] = times
            return self.diversity * penalty
        said: Counter[tuple[int, ...]] = Counter()
        for other in before:
            for text in (*other.texts, *(found.tokens for found in other.finished)):
                said.update(zip(*(text[i:] for i in range(self.ngram)), strict=False))
        penalty = torch.zeros(len(group.texts), vocabulary, dtype=torch.float64)
        for row, text in enumerate(group.texts):
            beginning = tuple(text[len(text) - self.ngram + 1 :])
            for words, times in said.items():
                if words[:-1] == beginning:
                    penalty[row, words[-1]] = times
        return self.diversity * penalty

    def _by_the_model(self, found: Hypothesis) -> Hypothesis:
        return replace(found, score=found.log_probability / len(found.tokens) ** self.length_penalty)

    def meters(self) -> dict[str, float]:
        """`log_probability` of what was yielded, and `distinct`: the share of different texts among all found."""
        if not self.hypotheses:
            return {}
        different = len({found.tokens for found in self.hypotheses})
        return {
            "log_probability": self.hypotheses[0].log_probability,
            "distinct": different / len(self.hypotheses),
        }


def example(lm: LM) -> list[Strategy]:
    """Hamming, and bigrams."""
    return [DiverseBeam(width=4, groups=2), DiverseBeam(width=3, groups=3, diversity=1.0, ngram=2)]


def greedy_limit(lm: LM) -> list[Strategy]:
    """One beam; and two that may say the same."""
    return [DiverseBeam(width=1, groups=1), DiverseBeam(width=2, groups=2, diversity=0.0)]
