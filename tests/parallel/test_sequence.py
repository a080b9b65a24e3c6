"""Facts about a decoder whose sequences are divided: logits, gradients and training are those of one process."""

import functools
from typing import Any

import pytest
import torch
from torch import distributed
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.tolerances import relative_error, tolerance
from paceline.data.recall import Recall
from paceline.lm.config import Config, build
from paceline.lm.decoder import Decoder
from paceline.lm.sequence import Lengthwise, shard_sequence, unshard_sequence
from paceline.lm.train import Recipe, train
from paceline.parallel._link import Link
from paceline.parallel._ranks import run_ranks
from paceline.parallel.lasp import LASP
from paceline.parallel.ring import Ring

PLANS = {
    "lightning": ("lightning(heads=2)",) * 2,
    "retnet": ("retnet(heads=2)",) * 2,
    "attention": ("attention(heads=4, kv_heads=2)",) * 2,
    "hybrid": ("lightning(heads=2)", "attention(heads=2)", "retnet(heads=2)"),
}
SIZES = (2, 4)
RECIPE = Recipe(tokens=4 * 3 * 24, batch=3, lr=1e-2, accumulate=1)


def built(plan: str) -> Decoder:
    torch.manual_seed(3)
    return build(Config(17, 16, 24, PLANS[plan]))


def task() -> Recall:
    return Recall(pairs=4, keys=8, values=8, stretch=8, queries=8)


def step(model: Decoder, ids: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    """Logits, and the gradient of the summed loss by parameter."""
    logits = model.logits(ids)
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    return [logits.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def one_step(link: Link, plan: str, dtype: str, others: bool) -> float:
    """The largest error of a process's logits and of the summed gradients."""
    model = built(plan).to(getattr(torch, dtype))
    ids = torch.arange(2 * 36).view(2, 36).square() % 17
    targets = ids.roll(-1, 1)
    expected = step(model, ids, targets)
    shard_sequence(model, link, *((LASP, Ring) if others else ()))
    found = step(model, link.part(ids), link.part(targets))
    for gradient in found[1:]:
        distributed.all_reduce(gradient)
    unshard_sequence(model)
    again = step(model, ids, targets)
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
    expected[0] = link.part(expected[0])
    return max(relative_error(a, b, 0.1) for a, b in zip(found, expected, strict=True))


def training(link: Link, plan: str) -> float:
    """How far weights and losses of a divided run are from those of one process."""
    alone, together = built(plan), built(plan)
    one = train(alone, task(), RECIPE, 1)
    world = Lengthwise(link.rank, link.size, torch.device("cpu"))
    several = train(together, task(), RECIPE, 1, world=world)
    pairs = [(a, b) for a, b in zip(together.state_dict().values(), alone.state_dict().values(), strict=True)]
    pairs += [(torch.tensor([x for _, x in several.curve]), torch.tensor([x for _, x in one.curve]))]
    assert several.ledger.flops == pytest.approx(one.ledger.flops)
    return max(relative_error(a, b, 0.1) for a, b in pairs)


def all_facts(link: Link) -> dict[str, Any]:
    """What a process finds."""
    steps = {
        f"{plan} {dtype} {others}": one_step(link, plan, dtype, others)
        for plan in PLANS
        for dtype in ("float64", "float32")
        for others in (False, True)
    }
    return {"steps": steps, "trained": {plan: training(link, plan) for plan in ("lightning", "hybrid")}}


@functools.cache
def ran(size: int) -> list[dict[str, Any]]:
    return run_ranks(all_facts, size)


@pytest.mark.parametrize("size", SIZES)
def test_logits_and_gradients_are_those_of_one_process(size: int) -> None:
    for facts in ran(size):
        assert len(facts["steps"]) == 16
        for name, error in facts["steps"].items():
            assert error <= tolerance(name.split()[1]), name


@pytest.mark.parametrize("size", SIZES)
def test_a_divided_run_ends_as_one_process_does(size: int) -> None:
    for facts in ran(size):
        assert facts["trained"].keys() == {"lightning", "hybrid"}
        assert all(error <= 10 * tolerance("float32") for error in facts["trained"].values()), facts["trained"]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("seqboat", "divided through SeqBoat: take a model of lightning"),
        ("attention(window=4)", "through attention with a window"),
        ("transnormer", "through TransNormer"),
    ],
)
def test_other_mixers_are_refused_and_the_model_is_as_it_was(plan: str, words: str) -> None:
    model = build(Config(17, 16, 0, ("lightning", plan)))
    with pytest.raises(PacelineError, match=words):
        shard_sequence(model, Link())
    assert not any("forward" in vars(mixer) for mixer in model.mixers)


def test_one_process_alone_is_a_group_too() -> None:
    model = built("hybrid").double()
    ids = torch.arange(24).view(1, 24) % 17
    expected = model.logits(ids)
    shard_sequence(model, Link())
    assert relative_error(model.logits(ids), expected) <= tolerance("float64")


def test_experts_that_balance_over_all_tokens_are_refused() -> None:
    model = build(Config(17, 16, 16, ("lightning",), feed_forward="moe(experts=2)"))
    with pytest.raises(PacelineError, match="divide only models with swiglu"):
        shard_sequence(model, Link())
