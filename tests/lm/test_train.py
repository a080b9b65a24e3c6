"""Facts about the training loop: what it learns, what a step is, and what it refuses."""

import math
import sys

import pytest
import torch
from _tiny import PLANS, model, recall, same
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.hints import hint
from paceline.data._contract import IGNORE, Batch
from paceline.data.recall import Recall
from paceline.lm import train as module
from paceline.lm.decoder import count_parameters
from paceline.lm.train import Diverged, Recipe, make_optimizer, peak_memory, reset_peak_memory, train

TASK = recall()
STEP = 4 * TASK.length
"""Tokens of a step of 4 sequences."""


def recipe(steps: int, **changes) -> Recipe:
    return Recipe(**{"tokens": steps * STEP, "batch": 4, "lr": 1e-2, **changes})


def losses(lm, batch: Batch) -> list[float]:
    """Nats of each asked token."""
    asked = batch.targets != IGNORE
    return functional.cross_entropy(lm.logits(batch.ids)[asked], batch.targets[asked], reduction="none").tolist()


def test_the_loss_falls_on_recall():
    task = Recall(pairs=1, keys=3, values=3, stretch=1, queries=2)
    trained = train(model("attention"), task, Recipe(tokens=120 * 16 * task.length, batch=16, lr=1e-2), seed=0)
    assert trained.curve[0][1] > 0.8 * math.log(3)
    assert trained.curve[-1][1] < 0.2 * math.log(3)


def test_the_seed_decides_everything():
    def run(seed):
        lm = model("hybrid", 7)
        return lm, train(lm, TASK, recipe(6), seed).curve

    (first, curve), (again, same_curve), (other, _) = run(3), run(3), run(4)
    assert same(first, again)
    assert curve == same_curve
    assert not same(first, other)


def test_batches_do_not_depend_on_the_global_generator():
    def run(draws):
        lm = model("ema", 7)
        torch.rand(draws)
        train(lm, TASK, recipe(3), 0)
        return lm

    assert same(run(0), run(5))


class Ragged(Recall):
    """Sequences that ask 0, 1, 2, 3, 4, 0, ... questions."""

    def sample(self, size, generator):
        batch = super().sample(size, generator)
        for row, targets in enumerate(batch.targets):
            targets[self.length - self.queries + row % (self.queries + 1) :] = IGNORE
        return batch


@pytest.mark.parametrize("passes", [2, 3, 4, 8])
def test_a_step_is_the_same_however_it_is_split(passes):
    """Also where the pieces ask different numbers of questions, one even none."""
    task = Ragged(pairs=2, keys=3, values=3, stretch=4, queries=4)
    whole, split = model("hybrid", 7).double(), model("hybrid", 7).double()
    start = model("hybrid", 7).double()
    one, other = (
        train(lm, task, Recipe(tokens=4 * 8 * task.length, batch=8, accumulate=n), 0)
        for lm, n in ((whole, 1), (split, passes))
    )
    assert one.curve == [(tokens, pytest.approx(loss, rel=1e-9)) for tokens, loss in other.curve]
    for name, weight in whole.state_dict().items():
        assert torch.allclose(weight, split.state_dict()[name], rtol=0, atol=1e-7), name
    assert max((w - start.state_dict()[n]).abs().max() for n, w in whole.state_dict().items()) > 1e-3


def test_the_curve_is_the_mean_loss_over_all_asked_tokens():
    task = Ragged(pairs=2, keys=3, values=3, stretch=4, queries=4)
    lm = model("ema", 7).double()
    trained = train(lm, task, recipe(110, lr=1e-30), seed=5)
    assert [tokens for tokens, _ in trained.curve] == [n * 2 * STEP for n in range(1, 56)]
    means = [sum(each) / len(each) for each in (losses(lm, task.batch(4, 5, step)) for step in range(110))]
    expected = [(one + two) / 2 for one, two in zip(means[::2], means[1::2], strict=True)]
    assert [loss for _, loss in trained.curve] == pytest.approx(expected, rel=1e-6)


def test_progress_is_told_about_fifty_times_and_at_the_end():
    told = []
    train(model("ema", 7), TASK, recipe(125), 0, progress=lambda *words: told.append(words))
    assert [done for done, _, _ in told] == [*range(2, 125, 2), 125]
    assert {of for _, of, _ in told} == {125}


@pytest.mark.parametrize("plan", PLANS)
def test_matrices_decay_but_not_vectors_nor_what_asks_not_to(plan):
    lm = model(plan)
    decay = {p: group["weight_decay"] for group in make_optimizer(lm, recipe(1)).param_groups for p in group["params"]}
    assert set(decay) == set(lm.parameters())
    for name, parameter in lm.named_parameters():
        spared = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in ("delta", "alpha", "beta", "gamma", "scale", "shift")
        assert decay[parameter] == (0.0 if spared else 0.1), name


def test_hints_scale_the_rate_and_set_the_decay():
    lm = model("ema")
    parameter = hint(lm.mixers[0].out.weight, lr_scale=0.25, weight_decay=0.5)
    groups = make_optimizer(lm, recipe(1, lr=0.2)).param_groups
    chosen = next(group for group in groups if any(p is parameter for p in group["params"]))
    assert (chosen["peak"], chosen["weight_decay"], len(chosen["params"])) == (0.05, 0.5, 1)
    assert {group["peak"] for group in groups if group is not chosen} == {0.2}


def test_a_rate_scaled_to_nothing_leaves_a_parameter_as_it_was():
    lm = model("ema", 7)
    hint(lm.mixers[0].out.weight, lr_scale=0.0)
    train(lm, TASK, recipe(3), 0)
    start = model("ema", 7)
    assert torch.equal(lm.mixers[0].out.weight, start.mixers[0].out.weight)
    assert not torch.equal(lm.mixers[1].out.weight, start.mixers[1].out.weight)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.1), (4, 0.4982), (9, 0.9822), (10, 0.978), (25, 0.8682), (50, 0.55), (75, 0.2318), (99, 0.1002)],
)
def test_the_rate_rises_and_then_follows_a_cosine(step, rate):
    assert Recipe(tokens=1).rate(step, 100) == pytest.approx(rate, abs=1e-4)


def test_without_warmup_the_rate_starts_at_its_peak():
    assert Recipe(tokens=1, warmup=0.0).rate(0, 100) == 1.0
    assert Recipe(tokens=1, last_lr=1.0, warmup=0.0).rate(77, 100) == 1.0
    assert Recipe(tokens=1).rate(0, 1) == 1.0


def test_every_step_is_taken_at_its_rate(monkeypatch):
    made, rates, plan = [], [], recipe(10)
    monkeypatch.setattr(module, "make_optimizer", lambda *args: made.append(make_optimizer(*args)) or made[0])
    train(model("ema", 7), TASK, plan, 0, progress=lambda *_: rates.append(made[0].param_groups[0]["lr"]))
    assert rates == [plan.lr * plan.rate(step, 10) for step in range(10)]


def test_the_gradient_is_clipped():
    """AdamW divides a scale out, but not once the gradient is far below its epsilon."""
    lm, start = model("ema", 7), model("ema", 7)
    train(lm, TASK, recipe(3, clip=1e-14, weight_decay=0.0), 0)
    assert all(torch.allclose(w, start.state_dict()[n], atol=1e-6) for n, w in lm.state_dict().items())
    train(lm, TASK, recipe(3, weight_decay=0.0), 0)
    assert not torch.allclose(lm.embedding.weight, start.embedding.weight, atol=1e-3)


def test_weights_that_are_not_numbers_diverge_with_a_sentence():
    lm = model("ema", 7)
    lm.embedding.weight.data[0] = math.nan
    with pytest.raises(Diverged, match=r"The loss became nan at step 1 of 3: lower the learning rate \(0.01\)\."):
        train(lm, TASK, recipe(3), 0)


def test_a_gradient_that_is_not_a_number_diverges_even_in_the_last_step(tmp_path):
    lm = model("ema", 7)
    lm.embedding.weight.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(Diverged):
        train(lm, TASK, recipe(1), 0, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_below_one_step_is_refused_with_the_least():
    assert Recipe(tokens=48, batch=4).steps(12) == 1
    for tokens in (47, 0, -100):
        with pytest.raises(PacelineError, match=r"too small for one step of 4 x 12: give at least 48"):
            train(model("ema", 7), TASK, Recipe(tokens=tokens, batch=4), 0)


@pytest.mark.parametrize(
    "settings",
    [{"lr": 0.0}, {"lr": -1.0}, {"lr": math.nan}, {"lr": math.inf}, {"batch": 0}, {"accumulate": 0}, {"accumulate": 5}],
)
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(PacelineError, match=f"{next(iter(settings))}="):
        recipe(1, **settings).steps(TASK.length)


@pytest.mark.parametrize(("batch", "passes"), [(4, 1), (4, 4), (5, 4)])
def test_the_ledger_counts_what_was_done(batch, passes):
    lm, calls = model("lightning", 7), []
    lm.layers[0].register_forward_hook(lambda *_: calls.append(1))
    tokens = 3 * batch * TASK.length
    ledger = train(lm, TASK, Recipe(tokens=tokens + 7, batch=batch, accumulate=passes), 0).ledger
    assert (ledger.tokens, ledger.model_calls) == (tokens, len(calls)) == (tokens, 3 * passes)
    assert ledger.parameters == count_parameters(lm) == sum(p.numel() for p in lm.parameters())
    assert ledger.state_bytes == lm.state_bytes(1, TASK.length)
    assert ledger.flops == pytest.approx(3 * 3 * lm.flops(batch, TASK.length).total)
    assert min(ledger.seconds, ledger.peak_bytes) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget a peak")
def test_a_peak_of_memory_can_be_forgotten():
    reset_peak_memory()
    before = peak_memory()
    torch.ones(2**26)  # 256 MiB, freed at once
    assert peak_memory() > before + 2**27
    reset_peak_memory()
    assert peak_memory() < before + 2**27
