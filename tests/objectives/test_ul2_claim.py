"""The claim on UL2 asks every model for the same bytes, and its sham hides them in another text."""

import pytest
import torch

from paceline.claims.objectives import ul2 as claim
from paceline.data._corpus import prepare
from paceline.data._reader import Document
from paceline.objectives.ul2 import UL2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("corpus")
    draws = torch.Generator().manual_seed(0)
    prepare([Document("d", bytes(torch.randint(97, 123, (20_000,), generator=draws).tolist()))], place)
    return place


def test_the_denoisers_are_the_authors():
    assert claim.faithful()


@pytest.mark.parametrize("asks", [claim.CONTINUATION, claim.INFILLING])
@pytest.mark.parametrize("how", [claim.METHOD, claim.CAUSAL, claim.SPAN, claim.OTHER, claim.SHAM])
def test_every_model_is_asked_for_the_same_bytes_and_shown_no_more_than_the_task_says(folder, asks, how):
    task = claim.Asked(folder, asks, 8)
    windows, (start, stop) = task.windows(), task.span
    for sequence, place in claim.forms(how, task):
        assert torch.equal(sequence[:, place:][:, : stop - start], windows[:, start:stop])
        assert sequence.shape[1] == place + stop - start
        shown = (sequence[:, :place] < 256).sum(1)
        assert (shown <= claim.LENGTH - (stop - start)).all()


def test_phrases_are_said_again_and_the_gap_is_told_by_what_follows(folder):
    task = claim.Asked(folder, claim.INFILLING, 20)
    for row in task.windows().tolist():
        first, second = bytes(row).split(b"\n")[:2]
        assert claim.PHRASE[0] <= len(first) < claim.PHRASE[1] and first.startswith(second[:8])
        assert len(first) >= claim.GAP[1] and len(second) >= claim.GAP[1]
    one, other = (claim.Echo(folder).batch(4, seed, 0) for seed in (0, 1))
    assert not torch.equal(one.ids, other.ids) and torch.equal(one.ids, claim.Echo(folder).batch(4, 0, 0).ids)


def test_the_sham_shows_one_text_and_asks_for_another():
    windows = torch.arange(4).view(4, 1).expand(4, 30).contiguous()
    settings = {"vocab_size": 5, "sentinels": 16}
    made = claim.Foreign(**settings).apply(windows, torch.Generator().manual_seed(0))
    true = UL2(**settings).apply(windows, torch.Generator().manual_seed(0))
    assert torch.equal(made.mask, true.mask)
    for row, (asked, text) in enumerate(zip(made.targets, made.sequence, strict=True)):
        assert set(asked[(asked >= 0) & (asked < 5)].tolist()) == {(row - 1) % 4}
        shown = text[:-1][~true.mask[row]]
        assert row in shown.tolist()
