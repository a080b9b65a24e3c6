"""The contract of the blocks, for every file of the family: a new one is tested without an edit here."""

import pytest
import torch

from paceline.core.discovery import load, methods

every_method = pytest.mark.parametrize("method", methods("blocks"))
WIDTH = 8


def build(method, seed=0):
    torch.manual_seed(seed)
    return load("blocks", method).example()


def sequence(length, seed=1, dtype=torch.float32):
    return torch.randn(2, length, WIDTH, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@every_method
@pytest.mark.parametrize("length", [1, 2, 7, 65])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_shape_dtype_and_finite(method, length, dtype):
    block, x = build(method).to(dtype), sequence(length, dtype=dtype)
    y = block(x)
    assert y.shape == x.shape and y.dtype == dtype and y.isfinite().all()


@every_method
def test_every_parameter_and_the_input_get_a_gradient(method):
    reached = set()
    for seed in range(4):  # a block that chooses tokens may choose none of one draw
        block, x = build(method, seed), sequence(20, seed).requires_grad_()
        (block(x) * sequence(20, seed + 10)).sum().backward()
        found = {"x": x.grad, **{name: p.grad for name, p in block.named_parameters()}}
        assert all(g.isfinite().all() for g in found.values() if g is not None)
        reached |= {name for name, g in found.items() if g is not None and (g != 0).any()}
    assert reached == {"x", *(name for name, _ in block.named_parameters())}


@every_method
def test_deterministic_and_the_input_is_left_alone(method):
    block, x = build(method), sequence(20)
    before = x.clone()
    assert torch.equal(block(x), block(x)) and torch.equal(x, before)
    assert torch.equal(build(method)(x), block(x))


@every_method
def test_a_token_sees_no_other(method):
    """Blocks do not mix tokens: a change at one leaves the outputs of the others alone."""
    block, x = build(method), sequence(9)
    changed = x.clone()
    changed[:, 4] = sequence(1, seed=5)[:, 0]
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    torch.testing.assert_close(block(changed)[:, others], block(x)[:, others])


@every_method
def test_saved_weights_are_the_whole_block(method):
    block, other, x = build(method), build(method, seed=9), sequence(20)
    other.load_state_dict(block.state_dict(), strict=True)
    assert torch.equal(block(x), other(x))
