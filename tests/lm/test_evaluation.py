"""Facts about measuring: the score is the one computed by hand, and how it is batched changes nothing."""

import math

import pytest
import torch
from _tiny import PLANS, model, recall

from paceline.data._contract import IGNORE
from paceline.data.recall import Recall
from paceline.lm.config import Config, build
from paceline.lm.evaluate import evaluate
from paceline.lm.train import Recipe, train

TASK = recall()


class InBits(Recall):
    """The same questions, scored like text."""

    metric, better, items = "bits per answer", "lower", 20


BITS = InBits(pairs=2, keys=3, values=3, stretch=4, queries=4)


def by_hand(lm, task):
    """Accuracy, and bits, of each item, one token at a time."""
    data, shares, bits = task.evaluation(), [], []
    for ids, targets in zip(data.ids, data.targets, strict=True):
        right, surprise = [], []
        for row, target in zip(lm.logits(ids.unsqueeze(0))[0].tolist(), targets.tolist(), strict=True):
            if target != IGNORE:
                right.append(max(range(len(row)), key=row.__getitem__) == target)
                surprise.append(math.log2(sum(math.exp(x) for x in row)) - row[target] / math.log(2))
        shares.append(sum(right) / len(right))
        bits.append(sum(surprise) / len(surprise))
    return shares, bits


@pytest.mark.parametrize("plan", PLANS)
def test_the_score_is_the_one_computed_by_hand(plan):
    lm = model(plan, 7)
    train(lm, TASK, Recipe(tokens=15 * 8 * TASK.length, lr=1e-2), 0)  # a fresh model never answers with a value
    shares, bits = by_hand(lm, TASK)
    assert 0 < sum(shares) < 20
    assert evaluate(lm, TASK).items == pytest.approx(shares)
    assert evaluate(lm, TASK).score == pytest.approx(sum(shares) / 20)
    assert evaluate(lm, BITS).items == pytest.approx(bits, rel=1e-5)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("batch", [1, 3, 20])
def test_the_batch_size_changes_no_item_and_no_meter(plan, batch):
    lm = model(plan, 7)
    whole, pieces = evaluate(lm, BITS), evaluate(lm, BITS, batch)
    assert pieces.items == pytest.approx(whole.items, rel=1e-5)
    assert pieces.meters == pytest.approx(whole.meters)
    assert [torch.allclose(g, h, atol=1e-6) for g, h in zip(pieces.gates, whole.gates, strict=True)] == [
        True for _ in whole.gates
    ]
    assert pieces.ledger.model_calls == -(-20 // batch)
    assert (pieces.ledger.tokens, whole.ledger.tokens) == (240, 240)


def test_the_bill_of_a_plan_that_does_not_choose_is_its_declared_cost():
    lm = model("attention", 7)
    assert evaluate(lm, TASK, batch=3).ledger.flops == pytest.approx(lm.flops(20, 12).total)


def test_meters_tell_what_each_layer_did_on_all_items():
    lm = model("hybrid", 7)
    found = evaluate(lm, TASK, batch=7)
    lm.logits(TASK.evaluation().ids)
    gates = lm.mixers[2].trace()
    assert list(found.meters) == ["activated.2"]
    assert found.meters["activated.2"] == pytest.approx((gates > 0).float().mean().item())
    assert 0 < found.meters["activated.2"] < 1
    assert [g.shape for g in found.gates] == [(20, 12)]
    assert torch.allclose(found.gates[0], gates, atol=1e-6)


def test_a_plan_that_does_not_choose_has_no_meters():
    found = evaluate(model("lightning", 7), TASK)
    assert (found.meters, found.gates) == ({}, [])


@pytest.mark.parametrize("mode", [True, False])
def test_the_training_mode_is_restored_and_no_gradient_kept(mode):
    lm = model("hybrid", 7).train(mode)
    seen = []
    lm.layers[0].register_forward_hook(lambda *_: seen.append((lm.training, torch.is_grad_enabled())))
    evaluate(lm, TASK)
    assert seen == [(False, False)]
    assert lm.training is mode
    assert all(part.training is mode for part in lm.modules())
    assert all(p.grad is None for p in lm.parameters())


def test_meters_of_parts_that_choose_no_tokens_are_means_over_all_items():
    lm = build(Config(TASK.vocab_size, 16, 24, ("aaren(heads=2)", "ema(dims=4)"), "recall"))
    found = evaluate(lm, TASK, batch=3)
    assert list(found.meters) == ["attended.0"]
    one_by_one = [evaluate_one(lm, row) for row in TASK.evaluation().ids]
    assert found.meters["attended.0"] == pytest.approx(sum(one_by_one) / len(one_by_one), rel=1e-4)


@torch.no_grad()
def evaluate_one(lm, row):
    lm.logits(row.unsqueeze(0))
    return lm.mixers[0].meters()["attended"]
