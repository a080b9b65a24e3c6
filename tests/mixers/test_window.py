"""The blocked window against the plain one, at the sizes that the family's small examples never reach."""

import pytest
import torch

from paceline.core.tolerances import close
from paceline.mixers import _slabs
from paceline.mixers._window import naive_windowed_attention, window_products, windowed_attention


def tensors(length, past=0, count=2, width=4, value_width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((length, width), (past + length, width), (past + length, value_width))
    return [torch.randn(count, *size, dtype=torch.float64, generator=generator) for size in sizes]


@pytest.mark.parametrize("lookback", [0, 1, 15, 16, 17, 100, 128, 129, 300])
@pytest.mark.parametrize("length", [1, 16, 17, 129, 431])
def test_every_block_size_equals_the_plain_form(length, lookback):
    q, k, v = tensors(length)
    assert close(windowed_attention(q, k, v, lookback), naive_windowed_attention(q, k, v, lookback), q.dtype)


@pytest.mark.parametrize("lookback", [1, 16, 130, 300])
@pytest.mark.parametrize("length", [1, 20, 290])
def test_keys_before_the_queries_are_the_past(length, lookback):
    for past in {0, 1, lookback // 2, lookback}:
        q, k, v = tensors(length, past)
        padded = torch.cat((q.new_zeros(2, past, 4), q), dim=1)
        expected = naive_windowed_attention(padded, k, v, lookback)[:, past:]
        assert close(windowed_attention(q, k, v, lookback), expected, q.dtype)


def test_keys_that_do_not_exist_get_no_weight():
    q, k, v = tensors(70, past=5)
    valid = torch.rand(2, 75, generator=torch.Generator().manual_seed(1)) < 0.5
    valid[:, 5:8] = True
    k[~valid], v[~valid] = 50.0, 1e6
    for squared_relu in (False, True):
        mixed = windowed_attention(q, k, v, 5, valid=valid, squared_relu=squared_relu)
        for row, at in ((0, 0), (1, 2), (0, 40), (1, 69)):
            seen = [j for j in range(at, at + 6) if valid[row, j]]
            if not seen:
                continue
            scores = k[row, seen] @ q[row, at]
            weights = (scores / 5).relu().square() if squared_relu else (scores / 2).softmax(0)
            assert close(mixed[row, at], weights @ v[row, seen], q.dtype, least=1.0)


def test_squared_relu_by_hand():
    q = torch.tensor([[[1.0], [2.0]]])
    k = torch.tensor([[[3.0], [-1.0]]])
    v = torch.tensor([[[5.0], [7.0]]])
    mixed = windowed_attention(q, k, v, 2, squared_relu=True)
    # token 0: (3 / 2)^2 5; token 1: (6 / 2)^2 5 and relu(-2 / 2)^2 7 = 0
    assert mixed.flatten().tolist() == [11.25, 45.0]


def test_the_cost_is_linear_in_the_length():
    assert window_products(1, 0, 16, 8, 8) == 0
    costs = [window_products(2, 1024 * n, 64, 8, 8) for n in (1, 2, 16)]
    steps = [costs[1] - costs[0], (costs[2] - costs[0]) / 15]  # what the first queries are spared is the same for all
    assert steps[0] == steps[1] == pytest.approx(costs[0], rel=0.05)


def gradients(run, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    mixed = run(*inputs)
    return mixed, *torch.autograd.grad((mixed * torch.linspace(-1, 2, mixed.numel()).view_as(mixed)).sum(), inputs)


@pytest.mark.parametrize("size", [1, 2_000, 20_000, 2**19])
@pytest.mark.parametrize(("length", "lookback"), [(70, 0), (201, 16), (431, 100), (131, 300)])
def test_gradients_equal_the_plain_form_whatever_a_slab_holds(length, lookback, size, monkeypatch):
    monkeypatch.setattr(_slabs, "CACHED", size)
    q, k, v = tensors(length, count=3)
    ours = gradients(lambda *x: windowed_attention(*x, lookback), q, k, v)
    theirs = gradients(lambda *x: naive_windowed_attention(*x, lookback), q, k, v)
    assert all(close(a, b, q.dtype) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("squared_relu", [False, True])
def test_gradients_are_those_of_small_steps(squared_relu, monkeypatch):
    monkeypatch.setattr(_slabs, "CACHED", 500)
    inputs = [x.requires_grad_() for x in tensors(40, past=2, width=2, value_width=3)]
    valid = torch.rand(2, 42, generator=torch.Generator().manual_seed(1)) < 0.8
    valid[:, ::5] = True

    def run(q, k, v):
        return windowed_attention(q, k, v, 5, valid=valid, squared_relu=squared_relu)

    assert torch.autograd.gradcheck(run, inputs)


def test_every_query_is_in_one_slab(monkeypatch):
    for size, length, past, lookback in [(1, 100, 3, 5), (5_000, 300, 0, 64), (10**6, 300, 20, 64), (10**4, 7, 9, 64)]:
        monkeypatch.setattr(_slabs, "CACHED", size)
        q, k = torch.zeros(5, length, 1), torch.zeros(5, past + length, 1)
        for slab in _slabs.slabs(q, k, k, lookback):
            slab.put(q, slab.blocks(q) + 1)
        assert (q == 1).all()


def test_autocast_changes_the_precision_and_nothing_else():
    q, k, v = (x.float() for x in tensors(150))
    exact = gradients(lambda *x: windowed_attention(*x, 20), q, k, v)
    with torch.autocast("cpu", torch.bfloat16):  # backward too, where in-place products would meet two dtypes
        found = gradients(lambda q, k, v: windowed_attention(q.bfloat16(), k, v.bfloat16(), 20).float(), q, k, v)
    assert all(close(a, b, torch.bfloat16) for a, b in zip(found, exact, strict=True))
