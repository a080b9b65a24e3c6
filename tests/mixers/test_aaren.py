"""Facts about Aaren: softmax over long pasts, scores of any size, no order, and a state that does not grow."""

import pytest
import torch
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.mixers import aaren
from paceline.mixers.aaren import Aaren, averages, naive_aaren


def build(d_model=8, heads=2, dtype=torch.float64):
    torch.manual_seed(0)
    return Aaren(d_model, heads=heads).to(dtype)


def sequence(*shape, dtype=torch.float64, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def outcome(inputs):
    """Averages, the state after them, and the gradients that there are."""
    scores, values, m, sums = (z.clone().requires_grad_() for z in inputs)
    y, top, after = averages(scores, values, m, sums)
    (y.sin().sum() + (after / after[..., -1:].detach()).square().sum()).backward()
    return [y.detach(), top.detach(), after.detach(), scores.grad, values.grad, sums.grad]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("length", "width"), [(1, 1), (150, 6), (2000, 24)])
def test_compiled_or_not_the_averages_are_the_same(length, width, dtype, monkeypatch):
    scores, values = sequence(2, 2, length, dtype=dtype), sequence(2, length, 2 * width, dtype=dtype, seed=2)
    sums = sequence(2, 2, width + 1, dtype=dtype, seed=3)
    inputs = [scores, values, sequence(2, 2, dtype=dtype, seed=4), sums.abs()]
    assert aaren.compilable(*inputs)
    compiled = outcome(inputs)
    monkeypatch.setattr(aaren, "compilable", lambda *_: False)
    assert all(close(ours, theirs, dtype) for ours, theirs in zip(compiled, outcome(inputs), strict=True))


@torch.no_grad()
def test_three_levels_of_chunks_equal_the_recurrence(monkeypatch):
    monkeypatch.setattr(aaren, "compilable", lambda *_: False)
    part, x = build(), sequence(1, 64 * 64 + 70, 8)
    assert close(part(x), naive_aaren(part, x), x.dtype)


@torch.no_grad()
def test_equals_torchs_attention_with_the_query_repeated():
    part, x = build(), sequence(2, 150, 8)
    keys, values = (part._heads(layer(x)) for layer in (part.to_key, part.to_value))
    query = part._heads(part.to_query(part.query).expand_as(x))
    heads = functional.scaled_dot_product_attention(query, keys, values, is_causal=True)
    assert close(part(x), part.out(heads.transpose(1, 2).flatten(2)), x.dtype)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_scores_of_any_size_choose_the_largest_so_far(scale):
    part, x = build(heads=1, dtype=torch.float32), sequence(1, 200, 8, dtype=torch.float32)
    part.query.mul_(scale)
    best = part.scores(x)[0, 0].cummax(0).indices
    assert close(part(x)[:, 150:], part.out(part.to_value(x[:, best]))[:, 150:], x.dtype)


@torch.no_grad()
def test_the_order_of_the_past_does_not_matter():
    part, x = build(), sequence(1, 100, 8)
    turned = torch.cat((x[:, :-1].flip(1), x[:, -1:]), dim=1)
    assert close(part(turned)[:, -1], part(x)[:, -1], x.dtype)
    assert not close(part(turned)[:, 50], part(x)[:, 50], x.dtype)


@torch.no_grad()
def test_the_state_is_of_one_size_whatever_was_seen():
    part = build()
    sizes = {
        sum(t.nbytes for t in part.extend(sequence(1, n, 8), part.initial_state(1))[1].values()) for n in (1, 1000)
    }
    assert sizes == {part.state_bytes(1, 0)} == {part.state_bytes(1, 10**6)} == {2 * (4 + 2) * 8}


@torch.no_grad()
def test_the_meter_goes_from_an_average_of_all_to_one_token():
    part, x = build(heads=1), sequence(3, 50, 8)
    assert part.meters() == {}
    part.query.zero_()
    part(x)
    assert part.meters()["attended"] == pytest.approx(1.0)
    part.query.fill_(1e6)
    part(x)
    assert part.meters()["attended"] == pytest.approx(1 / 50)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(PacelineError, match="width 8 is not a multiple of heads=3"):
        Aaren(8, heads=3)
