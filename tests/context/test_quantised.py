"""The quantised cache: errors within half a step, bytes as declared, the last tokens untouched."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paceline.context._contract import Place
from paceline.context.quantised import Quantised, pack, unpack
from paceline.core.errors import PacelineError


@given(st.integers(0, 10**6), st.sampled_from([4, 8]), st.sampled_from([1, 2, 4]), st.floats(1e-3, 1e3))
def test_codes_are_within_half_a_step(seed: int, bits: int, span: int, scale: float) -> None:
    x = scale * torch.randn(2, 2, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x[0, 0] = scale  # no range at all
    codes, low, step = pack(x, span, bits)
    assert codes.dtype == torch.uint8 and codes.shape == (2, 2, 8, 6 * bits // 8)
    assert low.shape == step.shape == ((2, 2, 8, 1) if span == 1 else (2, 2, 8 // span, 6))
    back = unpack(codes, low, step, bits)
    half = step / 2 if span == 1 else (step / 2).repeat_interleave(span, dim=2)
    assert ((back - x).abs() <= half + 1e-9 * scale).all() and torch.equal(back[0, 0], x[0, 0])
    spans = (
        (x.amax(3) - x.amin(3))[1]
        if span == 1
        else (x[1].unflatten(1, (-1, span)).amax(2) - x[1].unflatten(1, (-1, span)).amin(2))
    )
    assert torch.allclose(step[1].squeeze(-1) * (2**bits - 1), spans)


@pytest.mark.parametrize("bits", [4, 8])
def test_bytes_are_as_declared_and_the_last_tokens_in_full(bits: int) -> None:
    x = torch.randn(1, 2, 100, 16, generator=torch.Generator().manual_seed(0))
    policy = Quantised(bits, group=8, recent=10)
    _, memory = policy.attend(x, x, x, policy.empty(1, 2, 16, x), Place(0, 1, 0))
    coded = 88  # whole groups of what goes beyond the last ten
    assert torch.equal(memory["k"], x[:, :, coded:]) and torch.equal(memory["v"], x[:, :, coded:])
    assert memory["k"].untyped_storage().nbytes() == memory["k"].nbytes
    numbers = 2 * 2 * 12 * 16 + 2 * 2 * (coded // 8 * 16 + coded)
    assert sum(y.nbytes for y in memory.values()) == 4 * numbers + 2 * 2 * coded * 16 * bits // 8


def test_few_bits_are_near_and_fewer_less_near() -> None:
    x = torch.randn(1, 2, 65, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors = []
    for bits in (8, 4):
        policy = Quantised(bits, group=8, recent=0)
        _, memory = policy.attend(x[:, :, :64], x[:, :, :64], x[:, :, :64], policy.empty(1, 2, 16, x), Place(0, 1, 0))
        out, _ = policy.attend(x[:, :, 64:], x[:, :, 64:], x[:, :, 64:], memory, Place(0, 1, 64))
        exact = torch.nn.functional.scaled_dot_product_attention(x[:, :, 64:], x, x)
        errors.append(float((out - exact).abs().max()))
    assert 0 < 8 * errors[0] < errors[1] < 0.05


def test_nonsense_is_refused() -> None:
    with pytest.raises(PacelineError, match="8 or 4"):
        Quantised(2)
    with pytest.raises(PacelineError, match="do not fill bytes"):
        Quantised(4).empty(1, 1, 5, torch.empty(0))
