"""Facts about a model that races: trained within its budget, on the data of its seed, measured on all items."""

import pickle
import re

import pytest
import torch
from _toys import event

from paceline.core.errors import PacelineError
from paceline.data.recall import Recall
from paceline.lm.checkpoint import load_model
from paceline.lm.config import build
from paceline.lm.decoder import count_parameters
from paceline.lm.evaluate import evaluate
from paceline.race.contestant import Job, Model, Outcome

SEQBOAT = "seqboat(memory=4, dims=4)"


def go(folder, model: Model, seed: int = 0, task=None, keep=None) -> Outcome:
    torch.set_num_threads(1)
    torch.rand(3)  # nothing may depend on the global generator
    race = event(task=task) if task else event()
    return model.run(Job(race, seed, 1e-2, folder, keep), lambda *_: None)


@pytest.mark.parametrize("spec", ["attention(heads=2)", "ema", "lightning(heads=2)", SEQBOAT])
def test_a_model_runs_and_gives_an_outcome(tmp_path, spec):
    told = []
    outcome = Model(spec).run(Job(event(), 0, 1e-2, tmp_path), lambda *words: told.append(words))
    assert len(outcome.items) == 20
    assert all(0 <= item <= 1 for item in outcome.items)
    assert [tokens for tokens, _ in outcome.curve] == [48, 96, 144]
    assert [(done, of) for done, of, _ in told] == [(1, 3), (2, 3), (3, 3)]
    assert (outcome.ledger.tokens, outcome.ledger.model_calls) == (144, 3)
    assert outcome.ledger.parameters == pytest.approx(3000, rel=0.05)


def test_the_same_seed_gives_the_same_outcome_and_another_seed_another(tmp_path):
    first, again, other = (go(tmp_path / str(i), Model(SEQBOAT), seed) for i, seed in enumerate((3, 3, 4)))
    assert (first.items, first.curve, first.trace) == (again.items, again.curve, again.trace)
    assert first.curve != other.curve


def test_a_job_goes_on_from_the_checkpoints_in_its_folder(tmp_path):
    whole, told = go(tmp_path, Model("ema")), []
    again = Model("ema").run(Job(event(), 0, 1e-2, tmp_path), lambda *words: told.append(words))
    assert told == []  # all steps were in the checkpoint
    assert (again.items, again.curve) == (whole.items, whole.curve)


class Noted(Recall):
    """Remembers the batches that it gave."""

    def __init__(self) -> None:
        super().__init__(pairs=2, keys=3, values=3, stretch=4, queries=4)
        self.items, self.given = 5, []

    def batch(self, size, seed, step):
        self.given.append(super().batch(size, seed, step))
        return self.given[-1]


def test_contestants_share_the_data_order_of_a_seed(tmp_path):
    def given(name, spec, seed):
        task = Noted()
        go(tmp_path / name, Model(spec), seed, task)
        return torch.stack([batch.ids for batch in task.given])

    first, rival, later = given("a", "ema", 0), given("b", "attention(heads=2)", 0), given("c", "ema", 1)
    assert first.shape == (3, 4, 12)
    assert torch.equal(first, rival)
    assert not torch.equal(first, later)
    assert len({tuple(batch.flatten().tolist()) for batch in first}) == 3


def test_contestants_start_from_their_own_weights(tmp_path):
    """Sharing an initialisation across unlike models would mean nothing."""
    a, b = go(tmp_path / "a", Model("ema")), go(tmp_path / "b", Model("ema(dims=16)"))
    assert a.curve[0] != b.curve[0]


def test_the_model_is_saved_where_it_is_wanted_and_scores_the_same(tmp_path):
    outcome = go(tmp_path / "a", Model(SEQBOAT), keep=tmp_path / "kept")
    model, config = load_model(tmp_path / "kept")
    assert evaluate(model, event().task).items == outcome.items
    assert (config.plan, config.task) == ((SEQBOAT, SEQBOAT), "recall")


def test_the_gates_are_shown_for_one_item_token_by_token(tmp_path):
    outcome = go(tmp_path / "a", Model(SEQBOAT))
    task = event().task
    assert outcome.trace["tokens"] == task.show(task.evaluation().ids[0])
    assert [layer["layer"] for layer in outcome.trace["layers"]] == [0, 1]
    assert all(len(layer["gates"]) == task.length for layer in outcome.trace["layers"])
    assert set(outcome.meters) == {"activated.0", "activated.1"}
    assert go(tmp_path / "b", Model("ema")).trace is None


def test_check_refuses_too_small_a_token_budget():
    Model("ema").check(event(tokens=48))
    with pytest.raises(PacelineError, match="too small for one step of 4 x 12: give at least 48"):
        Model("ema").check(event(tokens=47))


def test_check_refuses_too_few_parameters():
    with pytest.raises(PacelineError, match="needs at least"):
        Model("ema").check(event(parameters=100))


@pytest.mark.parametrize("spec", ["emma", "ema(dim=4)", "ema(dims='4')", "attention(heads=0)"])
def test_check_refuses_what_cannot_be_built(spec):
    with pytest.raises(PacelineError):
        Model(spec).check(event())


@pytest.mark.parametrize("spec", ["", "ema(", "ema(4)", "__import__('os')"])
def test_a_spec_that_cannot_be_read_is_refused_at_once(spec):
    with pytest.raises(PacelineError):
        Model(spec)


def test_a_model_with_no_layers_is_refused():
    with pytest.raises(PacelineError, match="at least one layer"):
        Model("ema", layers=0).check(event())


def test_contestants_are_matched_in_size():
    for spec in ("attention", "ema(dims=4)", "lightning", "seqboat"):
        config = Model(spec).config(event(parameters=30_000))
        with torch.device("meta"):
            assert count_parameters(build(config)) == pytest.approx(30_000, rel=0.02), spec
        assert config.task == "recall"


def test_a_model_crosses_into_another_process_unchanged():
    model = Model("attention(window=4)", layers=3, rates=(0.1,))
    again = pickle.loads(pickle.dumps(model))
    assert (again.name, again.layers, again.settings, again.spec) == ("attention(window=4)", 3, (0.1,), model.spec)
    assert re.fullmatch(r"\[0.1, '3 layers'\]", repr(again.identity()))


def widen(model):
    """A change that a model may be given."""


def test_a_changed_model_is_another_contestant_with_the_same_start():
    plain, changed = Model("ema"), Model("ema", change=widen)
    assert changed.name == "ema, widen" and Model("ema", change=widen, name="wide").name == "wide"
    assert plain.identity() != changed.identity() and changed.identity()[-1].endswith(".widen")
    assert changed.config(event(parameters=30_000)) == plain.config(event(parameters=30_000))


def double_everything(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)


def test_a_change_is_applied_before_training_and_nothing_is_saved(tmp_path):
    def outcome(name, **options):
        job = Job(event(tokens=48), 0, 1e-9, tmp_path / name, tmp_path / "models" / name)
        return Model("ema", rates=(1e-9,), **options).run(job, lambda *_: None)

    plain, same, doubled = outcome("a"), outcome("b", change=widen), outcome("c", change=double_everything)
    assert plain.items == same.items != doubled.items
    assert (tmp_path / "models" / "a").is_dir() and not (tmp_path / "models" / "b").exists()
