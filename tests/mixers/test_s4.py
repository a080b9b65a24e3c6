"""Facts about S4 and S4D: HiPPO's matrix, the kernel in three ways, long inputs, the state, the parameters' hints."""

import math

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.mixers.s4 import S4, legs, naive_s4
from paceline.mixers.s4d import S4D, naive_s4d

KINDS = [S4, S4D]
DOUBLE = torch.float64

every_kind = pytest.mark.parametrize("kind", KINDS)


def build(kind, d_model=3, d_state=8, seed=0):
    torch.manual_seed(seed)
    return kind(d_model, d_state=d_state).double()


def sequence(*shape, seed=1):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def hippo(size):
    """HiPPO-LegS entry by entry, A and B."""
    a = torch.zeros(size, size, dtype=DOUBLE)
    for i in range(size):
        for j in range(i + 1):
            a[i, j] = -(i + 1) if i == j else -math.sqrt((2 * i + 1) * (2 * j + 1))
    return a, torch.tensor([math.sqrt(2 * i + 1) for i in range(size)], dtype=DOUBLE)


@pytest.mark.parametrize("size", [2, 6, 32])
def test_the_start_is_hippo_in_another_basis(size):
    a, b = hippo(size)
    eigenvalues, p, inputs = (torch.cat((z, z.conj())) for z in legs(size))
    rotated = torch.diag(eigenvalues) - torch.outer(p, p.conj())
    for power in range(4):  # B^T A^k B, the moments, do not depend on the (unitary) basis
        expected = b @ torch.linalg.matrix_power(a, power) @ b
        found = inputs.conj() @ torch.linalg.matrix_power(rotated, power) @ inputs
        assert close(found.real, expected, DOUBLE) and abs(found.imag) < 1e-9 * abs(expected)
    if size < 10:  # a triangular matrix has its diagonal for eigenvalues
        spectrum = torch.linalg.eigvals(rotated).real.sort().values
        assert close(spectrum, torch.arange(-size, 0).double(), torch.float32)


@every_kind
@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_the_kernel_of_any_length_is_what_an_impulse_gives(kind, length):
    part = build(kind)
    impulse = torch.zeros(1, length, 3, dtype=DOUBLE)
    impulse[:, 0] = 1
    assert close(part.ssm.kernel(length).T, part.ssm(impulse)[0], DOUBLE)


@every_kind
@pytest.mark.parametrize("length", [64, 199])
def test_equals_an_fft_convolution_with_the_kernel(kind, length):
    part, x = build(kind), sequence(2, length, 3)
    spectrum = torch.fft.rfft(x.transpose(1, 2), n=2 * length) * torch.fft.rfft(part.ssm.kernel(length), n=2 * length)
    assert close(part.ssm(x), torch.fft.irfft(spectrum, n=2 * length)[..., :length].transpose(1, 2), DOUBLE)


def test_two_tokens_of_s4d_by_hand():
    part = S4D(1, d_state=2).double()
    with torch.no_grad():
        part.ssm.log_step.fill_(math.log(0.5))
        part.ssm.log_decay.fill_(math.log(2.0))  # A = -2, real
        part.ssm.frequency.zero_()
        part.ssm.c.copy_(torch.tensor([[[3.0, 0.0]]]))
    first = 2 * 3 * (1 - math.exp(-1)) / 2
    y = part.ssm(torch.tensor([[[1.0], [0.0]]], dtype=DOUBLE))
    assert close(y.flatten(), torch.tensor([first, first * math.exp(-1)], dtype=DOUBLE), DOUBLE)


@pytest.mark.parametrize(("kind", "naive"), [(S4, naive_s4), (S4D, naive_s4d)])
def test_a_thousand_tokens_equal_the_recurrence(kind, naive):
    part, x = build(kind, d_state=16), sequence(1, 1000, 3)
    assert close(part(x), naive(part, x), DOUBLE)
    single = part.float()
    assert close(single(x.float()), naive(single, x.float()), torch.float32)


@every_kind
def test_an_impulse_never_grows(kind):
    part = build(kind, d_state=32)
    with torch.no_grad():
        part.ssm.log_step.fill_(math.log(50.0))  # far beyond any sensible step
    state = sequence(1, 3, 32)
    for _ in range(5):
        after = part.ssm.extend(torch.zeros(1, 100, 3, dtype=DOUBLE), state)[1]
        assert after.norm() <= state.norm() * (1 + 1e-12)
        state = after


@every_kind
def test_no_parameter_is_complex_and_those_of_the_kernel_are_slow(kind):
    part = build(kind)
    assert not any(p.is_complex() for p in part.parameters())
    hints = {name: getattr(p, "hints", {}) for name, p in part.ssm.named_parameters()}
    assert hints.pop("c") == {}
    assert hints and all(hint == {"weight_decay": 0.0, "lr_scale": 0.1} for hint in hints.values())


@every_kind
def test_the_meter_is_the_energy_of_the_kernels_second_half(kind):
    part = build(kind)
    assert part.meters() == {}
    part(sequence(1, 100, 3))
    energy = part.ssm.kernel(100).square()
    assert part.meters()["distant"] == pytest.approx((energy[:, 50:].sum(1) / energy.sum(1)).mean().item(), rel=1e-5)
    with torch.no_grad():
        part.ssm.log_step.fill_(math.log(1.0))
    assert part.meters()["distant"] < 1e-6


@every_kind
def test_the_state_does_not_grow(kind):
    part = build(kind)
    assert part.state_bytes(2, 1) == part.state_bytes(2, 100_000) == 2 * 3 * 8 * 8


@every_kind
@pytest.mark.parametrize("d_state", [0, 3, -2])
def test_states_that_are_no_pairs_are_refused(kind, d_state):
    with pytest.raises(PacelineError, match=f"d_state={d_state}"):
        kind(8, d_state=d_state)


def test_an_unknown_start_is_refused():
    with pytest.raises(PacelineError, match="'hippo'"):
        S4D(8, init="hippo")
