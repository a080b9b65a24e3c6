"""Facts about the EMA: plain arithmetic, the paper's convolution, and a long input."""

import math

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.mixers.ema import EMA, DampedEMA, naive_damped_ema


def build(seed=0, d_model=5, dims=4):
    torch.manual_seed(seed)
    return DampedEMA(d_model, dims).double()


def sequence(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_three_tokens_by_hand():
    part = DampedEMA(1, 1).double()
    with torch.no_grad():
        part.delta.fill_(math.log(3.0))  # p = 3/4
        part.alpha.fill_(0.0)  # q = 1 - 3/4 * 1/2 = 5/8
        part.beta.fill_(2.0)
        part.gamma.fill_(4.0)
        part.omega.fill_(10.0)
    y, h = part.extend(torch.tensor([[[1.0], [0.0], [2.0]]]).double(), torch.zeros(1, 1, 1).double())
    h1 = 0.75 * 2 * 1
    h2 = 0.625 * h1
    h3 = 0.625 * h2 + 0.75 * 2 * 2
    expected = torch.tensor([4 * h1 + 10, 4 * h2, 4 * h3 + 20]).double()
    assert close(y.flatten(), expected, y.dtype)
    assert h.item() == pytest.approx(h3, rel=1e-14)


def test_dimensions_are_averaged_by_the_root_of_their_number():
    one, four = build(dims=1), build(dims=4)
    with torch.no_grad():
        for name in ("delta", "alpha", "beta", "gamma"):
            getattr(four, name).copy_(getattr(one, name).expand(-1, 4))
        four.omega.copy_(one.omega)
    x = sequence(1, 20, 5)
    without = x * one.omega
    assert close(four(x) - without, 2 * (one(x) - without), x.dtype)  # 4 alike / sqrt(4)


@pytest.mark.parametrize("length", [1, 64, 65, 200])
def test_equals_an_fft_convolution_with_the_kernel(length):
    part, x = build(), sequence(3, length, 5)
    p = part.delta.sigmoid()
    q = 1 - p * part.alpha.sigmoid()
    powers = q.unsqueeze(-1) ** torch.arange(length)
    kernel = torch.einsum("dn,dnl->dl", p * part.beta * part.gamma, powers) / math.sqrt(part.dims)
    spectrum = torch.fft.rfft(x.transpose(1, 2), n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
    convolved = torch.fft.irfft(spectrum, n=2 * length)[..., :length].transpose(1, 2)
    assert close(part(x), convolved + part.omega * x, x.dtype)


def test_a_thousand_tokens_equal_the_recurrence():
    part, x = build(), sequence(2, 1000, 5)
    assert close(part(x), naive_damped_ema(part, x), x.dtype)
    single = part.float()
    assert close(single(x.float()), naive_damped_ema(single, x.float()), torch.float32)


def test_memories_start_alike_as_the_authors_do():
    log_q, _, _ = build(d_model=64, dims=16).coefficients()
    q = log_q.exp().mean(dim=0)
    assert ((q - 0.75).abs() < 0.02).all()
    assert ((log_q < 0) & log_q.isfinite()).all()


def test_extreme_parameters_stay_finite():
    part, x = build(), sequence(1, 300, 5)
    for extreme in (-60.0, 60.0):
        with torch.no_grad():
            part.delta.fill_(extreme)
            part.alpha.fill_(extreme)
        y = part(x)
        y.sum().backward()
        assert y.isfinite().all() and all(p.grad.isfinite().all() for p in part.parameters())
        assert close(y, naive_damped_ema(part, x), x.dtype)


def test_dims_below_one_are_refused():
    with pytest.raises(PacelineError, match="dims=0"):
        EMA(8, dims=0)


@pytest.mark.parametrize("length", [96, 97, 161, 190])
def test_slab_by_slab_is_the_whole_with_its_gradients(length, monkeypatch):
    part, x, h = build(), sequence(2, length, 5).requires_grad_(), sequence(2, 5, 4, seed=2).requires_grad_()

    def taken():
        y, after = part.extend(x, h)
        wanted = (x, h, *part.parameters())
        return [part(x), y, after, *torch.autograd.grad((y.sin().sum() + after.sum()), wanted)]

    whole = taken()
    monkeypatch.setattr("paceline.mixers.ema.SLAB", 64)
    for one, other in zip(taken(), whole, strict=True):
        assert close(one, other, x.dtype)
