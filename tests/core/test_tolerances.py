"""Facts about the table that the other tests stand on: it passes rounding and fails mistakes."""

import math

import numpy as np
import pytest
import torch

from paceline.core.tolerances import ROUNDING, TOLERANCE, close, relative_error, tolerance

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounding_is_that_of_the_dtype(dtype):
    assert ROUNDING[str(dtype).removeprefix("torch.")] == torch.finfo(dtype).eps / 2
    assert torch.finfo(dtype).eps < tolerance(dtype) < 0.1


def test_a_dtype_may_be_torchs_or_numpys_or_a_name():
    assert tolerance(torch.float32) == tolerance(np.float32) == tolerance(np.dtype("float32")) == tolerance("float32")
    with pytest.raises(KeyError):
        tolerance(torch.int64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_another_order_of_a_sum_is_close_and_a_wrong_term_is_not(dtype):
    x = torch.randn(200, 1000, dtype=dtype, generator=torch.Generator().manual_seed(0))
    total = x.sum(-1)
    assert close(x.flip(-1).cumsum(-1)[:, -1], total, dtype)
    assert not close(x[:, 1:].sum(-1), total, dtype)
    wrong = total.clone()
    wrong[17] *= 1.01  # a single element
    assert not close(wrong, total, dtype)


def test_the_error_is_the_largest_in_units_of_the_root_mean_square():
    expected = torch.tensor([3.0, 4.0, 0.0, 0.0])
    actual = expected + torch.tensor([0.0, 0.0, 0.5, -0.25])
    assert relative_error(actual, expected) == pytest.approx(0.5 / 2.5)
    assert relative_error(actual.numpy(), expected.numpy()) == pytest.approx(0.2)
    assert relative_error(actual, expected, least=5.0) == pytest.approx(0.1)


def test_corners():
    zeros, nothing = torch.zeros(2), torch.zeros(0, 3)
    assert relative_error(zeros, zeros) == 0 and relative_error(nothing, nothing) == 0
    assert relative_error(torch.tensor([0.0, 1e-30]), zeros) == math.inf
    for bad in (math.nan, math.inf):
        assert not close(torch.tensor([bad, 0.0]), torch.ones(2), "float32")
        assert not close(torch.ones(2), torch.tensor([bad, 0.0]), "float32")
    with pytest.raises(ValueError, match="shapes"):
        relative_error(torch.zeros(2, 1), zeros)
    assert set(TOLERANCE) == set(ROUNDING)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_very_large_and_small_numbers_are_judged_alike(scale):
    x = torch.tensor([3.0, 4.0, 0.0, 0.0]) * scale
    assert relative_error(x + torch.tensor([0.0, 0.0, 0.5, 0.0]) * scale, x) == pytest.approx(0.2)
    half = torch.tensor([300.0, -300.0]).half()  # its squares overflow
    assert not close(half + 30, half, half.dtype)
