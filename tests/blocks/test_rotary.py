"""Facts about rotary positions. Angles are fp32 by design, so turns agree to fp32."""

import pytest
import torch

from paceline.blocks.rotary import Rotary, naive_rotary, rotate
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close

PRECISION = torch.float32


def vectors(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("base", [10_000.0, 500.0])
@pytest.mark.parametrize("position", [0, 1, 2, 17, 1000])
def test_equals_the_rotation_matrices(position, base):
    x = vectors(6)
    turned = Rotary(6, base)(x.view(1, 6), torch.tensor([position]))
    assert close(turned[0], naive_rotary(x, position, base), PRECISION)


@pytest.mark.parametrize("shift", [1, 30, 400])
def test_products_depend_on_the_difference_of_positions(shift):
    rotary, q, k = Rotary(16), vectors(5, 16), vectors(5, 16, seed=1)
    positions, others = torch.tensor([0, 3, 7, 50, 90]), torch.tensor([4, 3, 0, 2, 89])
    products = (rotary(q, positions) * rotary(k, others)).sum(-1)
    shifted = (rotary(q, positions + shift) * rotary(k, others + shift)).sum(-1)
    assert close(shifted, products, PRECISION)
    moved = (rotary(q, positions + shift) * rotary(k, others)).sum(-1)
    assert not close(moved, products, PRECISION)


def test_a_slice_that_begins_at_an_odd_place():
    rotary, x = Rotary(4), vectors(9)
    assert torch.equal(rotary(x[1:].view(2, 4), torch.arange(2)), rotary(x[1:].clone().view(2, 4), torch.arange(2)))


def test_norms_are_kept_and_position_zero_turns_nothing():
    rotary, x = Rotary(8), vectors(3, 40, 8)
    turned = rotary(x, torch.arange(40))
    assert close(turned.norm(dim=-1), x.norm(dim=-1), PRECISION)
    assert torch.equal(turned[:, 0], x[:, 0])


def test_turning_back_by_the_gradient():
    """The transpose of a rotation is its inverse, so the gradient of x . turned is turned back."""
    rotary, x = Rotary(8), vectors(1, 12, 8).requires_grad_()
    turned = rotary(x, torch.arange(12))
    (back,) = torch.autograd.grad(turned, x, turned.detach())
    assert close(back, x.detach(), PRECISION)


def test_positions_broadcast_over_heads_and_may_differ_by_row():
    rotary, x = Rotary(4), vectors(2, 3, 5, 4)
    positions = torch.tensor([[0, 1, 2, 3, 4], [7, 9, 20, 21, 300]])
    turned = rotary(x, positions.unsqueeze(1))
    assert torch.equal(turned, rotate(x, rotary.turns(positions.unsqueeze(1))))
    for row in range(2):
        for head in range(3):
            assert torch.equal(turned[row, head], rotary(x[row, head], positions[row]))


@pytest.mark.parametrize("width", [1, 7])
def test_an_odd_width_is_refused(width):
    with pytest.raises(PacelineError, match=f"must be even, not {width}"):
        Rotary(width)
