"""UL2: the mixture, its modes, gaps, and models that are trained under it."""

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.data._corpus import prepare
from paceline.data._reader import Document
from paceline.data.text import Text
from paceline.lm.config import build, fit
from paceline.lm.denoising import Denoising, infill, widen
from paceline.lm.evaluate import evaluate
from paceline.lm.train import Recipe, train
from paceline.objectives.causal import Causal
from paceline.objectives.prefix_lm import PrefixLM
from paceline.objectives.ul2 import UL2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("corpus")
    lines = "".join(f"{word} is {word[::-1]}.\n" for word in ("left", "right", "middle", "nothing") * 200)
    prepare([Document("d", lines.encode())], place)
    return place


def test_the_kinds_have_their_shares_and_their_modes():
    objective = UL2(5, sentinels=64, sequential=0.2)
    windows = torch.randint(5, (20_000, 64), generator=torch.Generator().manual_seed(0))
    made = objective.apply(windows, torch.Generator().manual_seed(1))
    first = made.sequence[:, 0]
    shares = {mode: (first == objective.mode(mode)).double().mean().item() for mode in "RSX"}
    assert shares == pytest.approx({"R": 0.4, "S": 0.2, "X": 0.4}, abs=0.02)
    asked = made.mask.sum(1).double()
    regular, extreme, sequential = (asked[first == objective.mode(mode)].mean() for mode in "RXS")
    assert regular < extreme and sequential == pytest.approx(32, abs=0.5)
    text = (made.sequence < 5).sum(1) == 64
    assert text.all()  # whatever is hidden, every token of the text is in it once


def test_a_prefix_is_any_part_and_less_of_the_text_is_asked_for_by_rate():
    windows = torch.randint(5, (5_000, 41), generator=torch.Generator().manual_seed(0))
    for rate in (0.5, 0.25):
        asked = PrefixLM(5, rate).apply(windows, torch.Generator().manual_seed(1)).mask.sum(1)
        assert asked.double().mean().item() == pytest.approx(rate * 40 + 0.5, abs=0.4)
        assert asked.min() == 1 and asked.max() == 41 - max(1, 40 * (1 - 2 * rate))
    with pytest.raises(PacelineError, match=r"at most 0\.5"):
        PrefixLM(5, 0.6)


def test_a_gap_is_asked_for_with_what_is_on_both_sides():
    objective = UL2(10, sentinels=32)
    made = objective.gap(torch.arange(8).view(1, 8), 3, 5)
    gap, end = objective.sentinel(0), objective.end
    assert made.sequence.tolist() == [[objective.mode("R"), 0, 1, 2, gap, 5, 6, 7, end, gap, 3, 4, end]]
    assert torch.equal(objective.restore(made), torch.arange(8).view(1, 8))
    for start, stop in ((3, 3), (0, 8), (-1, 2), (5, 9)):
        with pytest.raises(PacelineError, match="no gap"):
            objective.gap(torch.arange(8).view(1, 8), start, stop)


@pytest.mark.parametrize("settings", [{"sequential": 1.1}, {"sequential": -0.1}, {"scale": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(PacelineError, match="UL2 cannot mix"):
        UL2(**settings)


def test_the_training_loop_takes_a_task_under_an_objective_and_the_model_fills_gaps(folder):
    objective = UL2(scale=4, sentinels=8)
    task = Denoising(Text(folder, 40), objective)
    batch = task.batch(4, 0, 0)
    assert batch.ids.shape == batch.targets.shape == (4, task.length) and task.vocab_size == 256 + 12
    assert torch.equal(task.batch(4, 0, 0).ids, batch.ids) and not torch.equal(task.batch(4, 0, 1).ids, batch.ids)
    assert len(task.show(batch.ids[0])) == task.length and task.describe().endswith(").")
    torch.manual_seed(0)
    model = build(fit(["attention"], task.vocab_size, 30_000))
    before = evaluate(model, task).score
    train(model, task, Recipe(60 * 8 * task.length, 8, lr=1e-2), seed=0)
    assert evaluate(model, task).score < before - 2
    made = infill(model.eval(), objective, list(b"left is "), list(b"\nright is thgir.\n"), tokens=12)
    assert 0 < len(made) <= 12 and all(token < 256 for token in made)
    assert made == infill(model, objective, list(b"left is "), list(b"\nright is thgir.\n"), tokens=12)


def test_a_causal_model_goes_on_under_another_objective(folder):
    objective, text = UL2(sentinels=8, scale=4), Text(folder, 40)
    torch.manual_seed(0)
    config = fit(["attention"], 256, 30_000)
    model = build(config)
    wider, made = widen(model, config, objective.extra_tokens)
    assert made.vocab_size == wider.vocab_size == 256 + objective.extra_tokens
    ids = text.batch(2, 0, 0).ids
    torch.testing.assert_close(wider.logits(ids)[..., :256], model.logits(ids))
    train(wider, Denoising(text, objective), Recipe(8 * 45, 2), seed=0)


def test_what_does_not_go_together_is_refused(folder):
    with pytest.raises(PacelineError, match="give it vocab_size=256"):
        Denoising(Text(folder, 40), UL2(5))
    model = build(fit(["attention"], 256, 30_000))
    with pytest.raises(PacelineError, match="was not trained under this objective"):
        infill(model, UL2(), [1], [2])
    with pytest.raises(PacelineError, match="There is nothing to fill in"):
        infill(model, UL2(), [], [])


def test_under_a_causal_objective_the_task_is_the_texts_own(folder):
    text = Text(folder, 40)
    task = Denoising(text, Causal())
    one, other = task.batch(4, 0, 3), text.batch(4, 0, 3)
    assert torch.equal(one.ids, other.ids) and torch.equal(one.targets, other.targets)
    assert task.vocab_size == text.vocab_size and task.length == text.length
