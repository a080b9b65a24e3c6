"""Span corruption: T5's numbers of hidden tokens and spans, and spans that may lie anywhere."""

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.objectives._contract import Objective
from paceline.objectives._spans import counts, draw_spans, fill
from paceline.objectives.span_corruption import SpanCorruption


def runs(row):
    """Lengths of the hidden spans."""
    return [len(piece) for piece in "".join("#" if hidden else " " for hidden in row).split()]


@pytest.mark.parametrize(("window", "rate", "span"), [(512, 0.15, 3), (512, 0.5, 8), (512, 0.15, 64), (64, 0.5, 3)])
def test_as_many_tokens_and_spans_are_hidden_as_in_t5(window, rate, span):
    hidden, spans = counts(window, rate, span)
    assert hidden == round(window * rate) and spans == max(1, round(hidden / span))
    masks = draw_spans(20, window, hidden, spans, torch.Generator().manual_seed(0))
    assert all(sum(runs(row)) == hidden and len(runs(row)) == spans for row in masks.tolist())


def test_every_token_is_hidden_at_times_and_all_masks_are_equally_likely():
    masks = draw_spans(20_000, 5, 2, 1, torch.Generator().manual_seed(0))
    kinds, seen = masks.unique(dim=0, return_counts=True)
    assert len(kinds) == 4 and ((seen - 5_000).abs() < 5 * 5_000**0.5).all()
    apart = draw_spans(20_000, 5, 2, 2, torch.Generator().manual_seed(0))
    kinds, seen = apart.unique(dim=0, return_counts=True)
    assert len(kinds) == 6 and ((seen - 20_000 / 6).abs() < 5 * (20_000 / 6) ** 0.5).all()


def test_a_case_worked_out_by_hand():
    """`We hold these truths to be self evident`, as the T5 paper hides it: (5, 6) are END and a sentinel's first."""

    class Given(SpanCorruption):
        pass

    from paceline.objectives._spans import hide

    made = hide(
        objective := Given(5, sentinels=2),
        torch.tensor([[0, 1, 2, 3, 4, 0]]),
        torch.tensor([[False, True, True, False, True, False]]),
        None,
    )
    end, first, second = objective.end, objective.sentinel(0), objective.sentinel(1)
    assert made.sequence.tolist() == [[0, first, 3, second, 0, end, first, 1, 2, second, 4, end]]
    assert made.mask.sum() == 6 and made.mask[0, 5:].all()
    assert objective.restore(made).tolist() == [[0, 1, 2, 3, 4, 0]]


@pytest.mark.parametrize("settings", [{"rate": 0.0}, {"rate": 1.0}, {"span": 0.5}, {"sentinels": 0}, {"vocab_size": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(PacelineError):
        SpanCorruption(**settings)


def test_too_few_sentinels_and_broken_sequences_are_refused():
    with pytest.raises(PacelineError, match="hides 3 spans behind 2 sentinels"):
        SpanCorruption(5, rate=0.5, span=1.0, sentinels=2).length(6)
    objective: Objective = SpanCorruption(5, sentinels=2)
    with pytest.raises(PacelineError, match="does not close what it shows"):
        fill(objective, torch.tensor([0, 1]))
    with pytest.raises(PacelineError, match="Hidden span 0 is shown nowhere"):
        fill(objective, torch.tensor([0, objective.sentinel(0), objective.end]))
