"""Facts about maps of few bits."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from paceline.compress._grid import on_grid, pack, unpack
from paceline.compress._hadamard import turn
from paceline.compress._nibbles import few_rows_of_nibbles
from paceline.compress._packed import Inputs
from paceline.compress._rows import kernels
from paceline.compress.rtn import RTN


@pytest.mark.parametrize("width", [2, 7, 64])
def test_packing_keeps_every_number(width):
    values = torch.randint(16, (5, width), dtype=torch.uint8)
    assert torch.equal(unpack(pack(values), width), values)
    assert pack(values).shape == (5, (width + 1) // 2)


@pytest.mark.parametrize("rows", [1, 3, 4, 9, 40])
@pytest.mark.parametrize(("weights", "group", "width"), [(4, 0, 48), (4, 0, 47), (4, 8, 48), (8, 0, 48), (16, 0, 48)])
def test_every_path_gives_the_product_with_the_weights_written_out(rows, weights, group, width):
    torch.manual_seed(0)
    linear, x = nn.Linear(width, 10), torch.randn(rows, width)
    made = RTN(weights, activations=8, group=group).nearest(linear, Inputs(8))
    with torch.no_grad():
        torch.testing.assert_close(made(x), functional.linear(on_grid(x, 8), made.weight, linear.bias))


def test_compiled_loops_give_the_product():
    if kernels() is None:
        pytest.skip("there is no numba")
    torch.manual_seed(0)
    codes, scale = torch.randint(16, (33, 64), dtype=torch.uint8), torch.rand(33)
    for rows in (1, 2, 4, 7):
        x = torch.randn(rows, 64)
        found = few_rows_of_nibbles(x, pack(codes), scale)
        torch.testing.assert_close(found, x @ ((codes.float() - 8) * scale[:, None]).T)


def test_inputs_are_turned_and_then_put_on_their_grid():
    x = torch.randn(3, 64)
    y = Inputs(4, turned=True).of(x)
    assert torch.equal(y, on_grid(turn(x), 4))
    assert all(len(row.unique()) <= 16 for row in y)
    assert torch.equal(on_grid(x, 4, 16).unflatten(1, (4, 16))[:, 2], on_grid(x[:, 32:48], 4))


def test_rows_of_zeros_and_of_one_sign_have_a_grid():
    x = torch.stack((torch.zeros(8), torch.arange(1.0, 9.0), -torch.arange(1.0, 9.0)))
    y = on_grid(x, 4)
    assert torch.equal(y[0], x[0])
    assert ((y - x).abs() <= 8 / 15 / 2 + 1e-6).all()


def test_gradients_pass_straight_through_the_grid():
    x = torch.randn(4, 8, requires_grad=True)
    on_grid(x, 4).mul(torch.arange(8.0)).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.arange(8.0).expand(4, 8))


def test_clipping_never_makes_the_error_larger():
    torch.manual_seed(0)
    linear = nn.Linear(64, 20, bias=False)
    linear.weight.data.pow_(3)
    errors = [
        torch.linalg.vector_norm(RTN(clip=clip).nearest(linear, Inputs()).weight - linear.weight, 2.4, dim=1)
        for clip in (0, 4, 80)
    ]
    assert (errors[1] <= errors[0] * 1.0001).all() and (errors[2] <= errors[1] * 1.0001).all()
    assert errors[2].sum() < 0.95 * errors[0].sum()
