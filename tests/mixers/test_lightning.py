"""Facts about lightning attention: a hand case, the order of the decays, and the state."""

import math

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.mixers.lightning import Lightning


def build(seed=0, d_model=8, heads=2):
    torch.manual_seed(seed)
    return Lightning(d_model, heads=heads).double()


def silu(x):
    return x / (1 + math.exp(-x))


def test_three_tokens_by_hand():
    part = build(d_model=1, heads=1)
    with torch.no_grad():
        part.qkvg.weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [0.0]]))  # q, k, v, gate
        part.out.weight.fill_(1.0)
    decay = math.exp(-(2.0**-8))
    state, outputs = 0.0, []
    for x in (1.0, -0.5, 2.0):
        state = decay * state + silu(2 * x) * 3 * x
        mixed = silu(x) * state
        eps = torch.finfo(torch.float64).eps  # the norm of one number is its sign, but for eps
        outputs.append(mixed / math.sqrt(mixed**2 + eps) * 0.5)
    x = torch.tensor([1.0, -0.5, 2.0]).double().view(1, 3, 1)
    y, after = part.extend(x, part.initial_state(1))
    assert close(y.flatten(), torch.tensor(outputs).double(), y.dtype)
    assert after["s"].item() == pytest.approx(state, rel=1e-13)


def test_an_impulse_fades_by_each_heads_own_decay():
    part = build(d_model=16, heads=4)
    x = torch.zeros(1, 11, 16).double()
    x[0, 0] = 1.0  # then silence: k = silu(0) = 0 adds nothing
    _, first = part.extend(x[:, :1], part.initial_state(1))
    _, last = part.extend(x[:, 1:], first)
    for head in range(4):
        rate = 2.0 ** (-8 * (head + 1) / 4)
        assert close(last["s"][:, head], first["s"][:, head] * math.exp(-10 * rate), x.dtype)


def test_later_heads_remember_longer():
    assert (build(d_model=32, heads=8).rate.diff() < 0).all()
    assert build(d_model=32, heads=8).rate[0].item() == pytest.approx(0.5)
    assert build(d_model=32, heads=8).rate[-1].item() == pytest.approx(2.0**-8)


def test_the_state_does_not_grow():
    part = build()
    assert part.state_bytes(2, 1) == part.state_bytes(2, 100_000) == 2 * 2 * 4 * 4 * 8


def test_a_long_input_stays_finite():
    part = build().float()
    x = torch.randn(1, 3000, 8, generator=torch.Generator().manual_seed(0))
    assert part(x).isfinite().all()


@pytest.mark.parametrize("heads", [0, 3, -2])
def test_heads_that_do_not_divide_are_refused(heads):
    with pytest.raises(PacelineError, match=f"heads={heads}"):
        build(heads=heads)
