"""Layers run apart give what the model gives, and LayerSkip's recipe trains the early ones."""

import math

import pytest
import torch
from _lms import decoding_lm
from _tiny import model, recall, same
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.layered import is_layered, read_layers
from paceline.lm.early_exit import NAME, attach, detach, dropout_rates, exit_weights, gradual, rising, rotational
from paceline.lm.layers import layered
from paceline.lm.train import Recipe, train

IDS = torch.tensor([[3, 1, 4, 1, 5, 2, 6]])


@pytest.mark.parametrize("kind", ["attention", "hybrid", "lean llama"])
def test_layers_run_apart_are_the_model(kind):
    lm = decoding_lm(kind)
    apart = layered(lm)
    expected, state = lm(IDS, None)
    x, after = read_layers(apart, IDS, None)
    torch.testing.assert_close(apart.head(x), expected)
    memories = apart.initial_state(1).layers
    x, early = apart.through(apart.embed(IDS), memories[:1], 0)
    x, late = apart.through(x, memories[1:], 0, first=1)
    torch.testing.assert_close(apart.head(x), expected)
    assert after.length == state.length == 7 and len(early) + len(late) == apart.depth == len(memories)
    more = torch.tensor([[2, 7]])
    torch.testing.assert_close(apart.head(read_layers(apart, more, state)[0]), lm(more, after)[0])


def test_the_view_of_a_decoder_is_the_decoder_in_all_else():
    decoder = model("ema")
    view = layered(decoder)
    assert is_layered(view) and layered(view) is view and not is_layered(decoder)
    assert view.mixers == decoder.mixers and view.initial_state(2).of == decoder.kind
    with pytest.raises(AttributeError):
        view.nothing  # noqa: B018


def test_other_models_are_refused():
    with pytest.raises(PacelineError, match="HuggingFaceLM cannot be run apart"):
        layered(decoding_lm("gpt2"))


def test_the_schedules_are_the_papers():
    rates = dropout_rates(5, 0.2)
    assert rates[0] == 0 and rates[4] == pytest.approx(0.2)
    assert rates[2] == pytest.approx(0.2 * (math.sqrt(2) - 1))
    assert rising(0, 11) == 0 and rising(10, 11) == pytest.approx(1) and rising(5, 11) == pytest.approx(2**0.5 - 1)
    assert [rotational(3)(step, 9, 6) for step in (0, 1, 3)] == [
        [True, False, False, True, False, False],
        [False, True, False, False, True, False],
        [True, False, False, True, False, False],
    ]
    assert gradual(0, 80, 4) == [False] * 4 and gradual(10, 80, 4) == [False, False, False, True]
    assert gradual(39, 80, 4) == [False, True, True, True] and gradual(40, 80, 4) == [True] * 4
    assert exit_weights([True] * 3, 0.5) == pytest.approx([0.5 / 8, 1.5 / 8, 6 / 8])
    assert exit_weights([True, False, False], 1.0) == pytest.approx([1 / 7, 0, 6 / 7])


def test_the_loss_is_that_of_the_exits_and_nothing_is_left_behind():
    decoder, plain = model("hybrid"), model("hybrid")
    part = attach(decoder, 4, dropout=0.0, scale=0.5, curriculum=rotational(1))
    assert torch.equal(decoder.logits(IDS), plain.logits(IDS))
    x, expected = plain._embed(IDS), 0.0
    weights = exit_weights([True] * 3, 0.5)
    for layer, weight in zip(plain.stack[:2], weights, strict=False):
        x = layer(x)
        exits = plain._head(plain.norm(x))[0, :-1]
        expected = expected + weight / weights[2] * functional.cross_entropy(exits, IDS[0, 1:])
    torch.testing.assert_close(decoder.auxiliary_loss(), expected + plain_auxiliary(plain))
    with pytest.raises(PacelineError, match="detach the first"):
        attach(decoder, 4)
    detach(decoder)
    assert not hasattr(decoder, NAME) and same(decoder, plain) and part._hooks == []


def plain_auxiliary(plain):
    """What the parts of a plain model ask for."""
    plain.logits(IDS)
    loss = plain.auxiliary_loss()
    return 0.0 if loss is None else loss


def test_layers_are_dropped_in_training_alone_and_the_later_the_more():
    decoder = model("hybrid")
    attach(decoder, 1, dropout=0.9, from_scratch=False)
    ids = IDS.expand(400, -1)
    heard = {}
    for index, layer in enumerate(decoder.stack):
        layer.register_forward_hook(
            lambda m, given, result, i=index: heard.update(
                {i: (result == given[0]).all(2).all(1).float().mean().item()}
            )
        )
    decoder.logits(ids)
    assert heard[0] == 0 and 0.25 < heard[1] < 0.5 and 0.8 < heard[2] < 0.97  # 0, 0.37, 0.9
    with torch.no_grad():
        decoder.logits(ids)
    assert max(heard.values()) == 0
    decoder.eval()
    decoder.logits(ids)
    assert max(heard.values()) == 0


def early_loss(decoder, ids):
    with torch.no_grad():
        x = decoder.stack[0](decoder._embed(ids))
        logits = decoder._head(decoder.norm(x))[:, :-1]
        return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()


def test_the_recipe_makes_early_layers_better_in_the_plain_loop(tmp_path):
    task, recipe = recall(), Recipe(tokens=60 * 8 * recall().length, lr=1e-2)
    losses = {}
    for name in ("plain", "recipe"):
        decoder = model("attention", vocabulary=task.vocab_size)
        if name == "recipe":
            attach(decoder, 60, dropout=0.1, scale=1.0, curriculum=rotational(2))
        train(decoder, task, recipe, 0)
        detach(decoder)
        losses[name] = early_loss(decoder, task.batch(64, 1, 0).ids)
    assert losses["recipe"] < losses["plain"] - 0.1


def test_an_interrupted_training_goes_on_where_it_was(tmp_path):
    task, recipe = recall(), Recipe(tokens=12 * 8 * recall().length)
    made = []
    for folder, stops in ((tmp_path / "whole", ()), (tmp_path / "cut", (5,))):
        for stop in (*stops, None):
            decoder = model("attention", vocabulary=task.vocab_size)
            attach(decoder, 12, dropout=0.5, scale=1.0)

            def halt(done, of, loss, stop=stop):
                if stop == done:
                    raise KeyboardInterrupt

            torch.manual_seed(3)
            try:
                train(decoder, task, recipe, 0, folder=folder, save_seconds=0.0, progress=halt)
            except KeyboardInterrupt:
                continue
            detach(decoder)
            made.append(decoder)
    assert same(*made)
