"""Facts about the encoder form: it reads both ways, gives one answer, and cannot go on."""

import pytest
import torch
from _tiny import PLANS, VOCABULARY, recall, same
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from paceline.core.errors import PacelineError
from paceline.data.needle import Needle
from paceline.lm.checkpoint import load_model, save_model
from paceline.lm.config import Config, build, fit
from paceline.lm.decoder import Decoder
from paceline.lm.encoder import Encoder
from paceline.lm.evaluate import evaluate
from paceline.lm.train import Recipe, train
from paceline.race.contestant import Event, Model

BOTH_WAYS = ("attention(heads=2, causal=False)",) * 2
EVERY = pytest.mark.parametrize("plan", [*PLANS.values(), BOTH_WAYS], ids=[*PLANS, "both_ways"])


def config(plan: tuple[str, ...]) -> Config:
    return Config(VOCABULARY, 16, 24, plan, "needle", form="encoder")


def model(plan: tuple[str, ...]) -> Encoder:
    torch.manual_seed(0)
    built = build(config(plan))
    assert isinstance(built, Encoder)
    return built


def ids(batch: int = 3, length: int = 20) -> torch.Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(5))


def heard(lm: Decoder, text: torch.Tensor) -> list[int]:
    """Positions whose embedding the answer depends on."""
    read = []
    hook = lm.embedding.register_forward_hook(lambda _, __, x: read.append(x) or x.retain_grad())
    lm.logits(text)[:, -1].square().sum().backward()
    hook.remove()
    return read[0].grad.abs().amax((0, 2)).nonzero().flatten().tolist()


@EVERY
def test_one_answer_at_every_position_from_all_tokens(plan):
    lm, text = model(plan), ids()
    logits = lm.logits(text)
    assert logits.shape == (3, 20, VOCABULARY) and torch.equal(logits, logits[:, :1].expand(-1, 20, -1))
    assert heard(lm, text) == list(range(20))
    (lm.logits(text)[:, -1] * torch.randn(3, VOCABULARY)).sum().backward()
    silent = [name for name, p in lm.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert silent == [] or "seqboat" in plan[-1]  # which may choose no token of so few


def test_causal_layers_in_turn_know_both_ends():
    """Not only through the mean: after two layers each token's vector knows the first and the last token."""
    lm, text = model(PLANS["attention"]), ids(1)
    for at in (0, 7, 19):
        changed = text.clone()
        for end in (0, 19):
            changed[0, end] = (text[0, end] + 1) % VOCABULARY
            one, other = lm.hidden_states(text)[0, at], lm.hidden_states(changed)[0, at]
            assert (one - other).abs().max() > 1e-4
            changed = text.clone()
    order = lm.logits(text.flip(1))
    assert not torch.allclose(order, lm.logits(text), atol=1e-4)


def test_one_causal_layer_reads_from_left_to_right():
    lm, text = model(PLANS["attention"][:1]), ids(1)
    changed = text.clone()
    changed[0, -1] = (text[0, -1] + 1) % VOCABULARY
    before, after = lm.hidden_states(text)[0], lm.hidden_states(changed)[0]
    assert torch.equal(before[:-1], after[:-1]) and not torch.equal(before[-1], after[-1])


def test_the_answer_is_the_mean_of_what_the_layers_tell():
    lm, text = model(PLANS["ema"]), ids()
    x = lm.embedding(text) * 4
    x = lm.stack[0](x)
    x = lm.stack[1](x.flip(1)).flip(1)
    expected = lm.norm(x).mean(1) @ lm.embedding.weight.T
    assert torch.allclose(lm.logits(text)[:, 4], expected, atol=1e-5)


@torch.no_grad()
def test_gates_are_told_in_the_order_of_the_tokens():
    """The second layer reads from right to left: the first token is the last that it hears of."""
    lm = model(("attention(heads=2, window=1)", PLANS["seqboat"][0]))
    torch.nn.init.constant_(lm.mixers[1].configurator.logits.bias, 0.0)
    torch.nn.init.normal_(lm.mixers[1].configurator.logits.weight)
    text, gates = ids(), []
    for first in range(VOCABULARY):
        text[:, 0] = first
        lm.logits(text)
        assert lm.traces().keys() == {1}
        gates.append(lm.traces()[1])
    apart = torch.stack(gates).amax(0) - torch.stack(gates).amin(0)
    assert (apart[:, 1:] == 0).all() and (apart[:, 0] > 0).any()


def test_it_cannot_go_on():
    lm, text = model(BOTH_WAYS), ids()
    for ask in (lm.extend, lm.read_prompt, lm):
        with pytest.raises(PacelineError, match="An encoder reads a sequence as a whole"):
            ask(text)
    assert lm.state_bytes(3, 1_000) == 0


@EVERY
@pytest.mark.parametrize("length", [1, 20, 130])
def test_declared_products_are_those_counted(plan, length):
    lm, text = model(plan), ids(1, length)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        lm.logits(text)
    assert lm.flops(1, length).products == pytest.approx(counter.get_total_flops(), rel=0.02)


@EVERY
def test_it_comes_back_from_disk_as_it_was(plan, tmp_path):
    lm, text = model(plan), ids()
    save_model(lm, config(plan), tmp_path / "m")
    again, known = load_model(tmp_path / "m")
    assert known == config(plan) and isinstance(again, Encoder) and same(again, lm)
    assert torch.equal(again.logits(text), lm.logits(text))


def test_a_task_that_asks_more_than_once_is_refused():
    with pytest.raises(PacelineError, match="An encoder gives one answer a sequence, and recall asks for more"):
        Model("ema", form="encoder").check(Event(recall(), 10_000, 10_000, 4))
    Model("ema", form="encoder").check(Event(Needle(length=8), 10_000, 10_000, 4))


@pytest.mark.parametrize("mixer", ["ema", "attention(heads=2, causal=False)"])
def test_it_learns(mixer):
    task = Needle(length=10, keys=1, values=4, symbols=3)
    config = fit([mixer] * 2, task.vocab_size, 5_000, task.name, form="encoder")
    torch.manual_seed(0)
    lm = build(config)
    assert evaluate(lm, task).score < 0.5
    train(lm, task, Recipe(tokens=16_000, batch=16, lr=1e-2), seed=0)
    assert evaluate(lm, task).score > 0.9
