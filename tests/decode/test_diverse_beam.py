"""Diverse beam search: penalties by hand, and groups that differ."""

import itertools

import pytest
import torch
from _lms import decoding_lm

from paceline.core.errors import PacelineError
from paceline.decode._generate import generate
from paceline.decode.beam import Beam
from paceline.decode.diverse_beam import DiverseBeam
from paceline.lm.table import Table

P = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], dtype=torch.float64)
"""After every token the same: 0 is likeliest."""


def texts(search: DiverseBeam) -> list[list[tuple[int, ...]]]:
    return [[found.tokens for found in group] for group in search.groups_found]


@pytest.mark.parametrize(
    ("diversity", "ngram", "expected"),
    [
        # log(0.5 / 0.3) = 0.51, log(0.5 / 0.2) = 0.92, log(0.3 / 0.2) = 0.41
        (0.3, 0, [(0, 0, 0), (0, 0, 0), (1, 1, 1)]),  # two groups said 0 when the third chooses: 0.6 > 0.51
        (0.6, 0, [(0, 0, 0), (1, 1, 1), (0, 0, 0)]),  # 0 and 1 cost 0.6 each then: 0 is likelier
        (1.0, 0, [(0, 0, 0), (1, 1, 1), (2, 2, 2)]),
        (0.3, 1, [(0, 0, 0), (0, 1, 1), (1, 1, 2)]),  # wherever they said it: 0 costs 0.3, 0.6, 0.9 for the second
    ],
)
def test_tokens_that_others_chose_cost_lambda_each(diversity: float, ngram: int, expected: list) -> None:
    search = DiverseBeam(width=3, groups=3, diversity=diversity, ngram=ngram)
    assert generate(Table(P.log()), [0], search, 3).all() == [0, 0, 0]
    assert texts(search) == [[text] for text in expected]


def test_scores_carry_the_penalties_and_log_probabilities_do_not() -> None:
    search = DiverseBeam(width=2, groups=2, diversity=0.1, length_penalty=0.0)
    generate(Table(P.log()), [0], search, 3).all()
    (first,), (second,) = search.groups_found
    assert second.tokens == first.tokens == (0, 0, 0) and first.score == pytest.approx(float(3 * P[0, 0].log()))
    assert second.log_probability == pytest.approx(first.score) and second.score == pytest.approx(first.score - 0.3)


def naive(table: torch.Tensor, width: int, groups: int, diversity: float, steps: int) -> list[list[tuple[int, ...]]]:
    """The paper's algorithm for Hamming distance, with lists."""
    beams: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, ())] for _ in range(groups)]
    for _, group in itertools.product(range(steps), range(groups)):
        said = [text[-1] for other in beams[:group] for _, text in other]
        longer = [
            (score + float(table[(text or (0,))[-1], token]) - diversity * said.count(token), (*text, token))
            for score, text in beams[group]
            for token in range(len(table))
        ]
        beams[group] = sorted(longer, reverse=True)[: width // groups]
    return [[text for _, text in group] for group in beams]


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_the_papers_algorithm(seed: int) -> None:
    lm = Table(2 * torch.randn(7, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    search = DiverseBeam(width=6, groups=3, diversity=0.7)
    generate(lm, [0], search, 6).all()
    assert texts(search) == naive(lm.table.log_softmax(-1), 6, 3, 0.7, 6)


@pytest.mark.parametrize("kind", ["hybrid", "lean llama"])
def test_one_group_is_beam_search_and_more_are_more_diverse(kind: str) -> None:
    lm, prompt, stop = decoding_lm(kind), [3, 1, 4, 1, 5], [7]
    plain, single, diverse = Beam(width=6), DiverseBeam(6, 1, 5.0), DiverseBeam(6, 3, 5.0)
    for search in (plain, single, diverse):
        generate(lm, prompt, search, 10, stop=stop).all()
    assert [h.tokens for h in single.hypotheses] == [h.tokens for h in plain.hypotheses]
    assert len({h.tokens[0] for h in diverse.hypotheses}) > len({h.tokens[0] for h in plain.hypotheses})


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(PacelineError, match="multiple of groups, not 5 for 2"):
        DiverseBeam(width=5, groups=2)
    with pytest.raises(PacelineError, match="must be at least 0"):
        DiverseBeam(diversity=-1.0)
