"""The blocked window against the plain one, at the sizes that the family's small examples never reach."""

import pytest
import torch

from paceline.core.tolerances import close
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
    assert costs[1] == 2 * costs[0] and costs[2] == 16 * costs[0]
