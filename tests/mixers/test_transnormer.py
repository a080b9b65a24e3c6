"""Facts about TransNormerLLM's mixer: relative positions, the schedule of decay, and finite numbers at any length."""

import math

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.mixers.transnormer import TransNormer, naive_transnormer, slopes

DOUBLE = torch.float64


def build(seed=0, d_model=8, **arguments):
    torch.manual_seed(seed)
    return TransNormer(d_model, heads=2, **arguments).double()


def sequence(*shape, seed=1):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def attend(part, x):
    """The outputs by the whole (t, t) matrix of scores, positions by differences alone."""
    q, k, v, gate = part._project(x)
    t = torch.arange(x.shape[1])
    ages = (t.unsqueeze(1) - t).double()
    turned = torch.cos(part.theta.unsqueeze(-1).unsqueeze(-1) * ages)  # (heads, s, t, t)
    scores = torch.einsum("bhis,bhjs,hsij->bhij", q, k, turned)
    decay = torch.exp(-part.rate.view(-1, 1, 1) * ages.clamp(min=0)) * (ages >= 0)
    return part._merge((scores * decay) @ v, gate)


@pytest.mark.parametrize("length", [5, 64, 150])
def test_positions_count_by_their_differences(length):
    part, x = build(depth=0.25), sequence(2, length, 8)
    assert close(part(x), attend(part, x), DOUBLE)


def by_powers(part, x):
    """The textbook form: queries times lambda^i, keys times lambda^-j, so that no decay stands between them."""
    q, k, v, gate = part._project(x)
    t = torch.arange(x.shape[1], dtype=x.dtype).unsqueeze(1)
    rate = part.rate.view(-1, 1, 1)
    scores = ((q * torch.exp(-rate * t)) @ (k * torch.exp(rate * t)).transpose(2, 3)).tril()
    return part._merge(scores @ v, gate)


def test_powers_of_the_decay_overflow_where_this_form_does_not():
    part = build(positions=False)
    steepest = part.rate.max().item()
    short = sequence(1, 50, 8)
    assert close(by_powers(part, short), part(short), DOUBLE)  # the same thing, while it lasts
    part = part.float()
    tokens = math.ceil(2 * math.log(torch.finfo(torch.float32).max) / steepest)
    x = sequence(1, tokens, 8).float()
    assert not by_powers(part, x).isfinite().all()
    y = part(x)
    assert y.isfinite().all()
    assert close(y.double(), naive_transnormer(part.double(), x.double()), torch.float32)


def test_decays_are_those_of_alibi_and_fade_with_depth():
    assert slopes(8) == [2.0**-h for h in range(1, 9)]
    assert slopes(3) == [2.0**-4, 2.0**-8, 2.0**-2]  # two heads, and every other of four
    first, last = build(depth=0.0).rate, build(depth=1.0).rate
    assert close(first, torch.tensor(slopes(2), dtype=DOUBLE) * (1 + 1e-5), DOUBLE)
    assert close(last, torch.tensor(slopes(2), dtype=DOUBLE) * 1e-5, torch.float32)


def test_the_norm_is_simple_and_the_gate_linear():
    part, x = build(), sequence(2, 30, 8)
    _, _, v, gate = part._project(x)
    rows = v.transpose(1, 2).flatten(2)
    normed = rows / (rows.square().sum(-1, keepdim=True) / 8 + 1e-6).sqrt()  # the authors' 1e-6
    assert close(part._merge(v, gate), (normed * gate) @ part.out.weight.T, DOUBLE)


def test_the_meter_is_the_share_that_came_through_the_state():
    part = build(depth=1.0)
    part(sequence(2, 64, 8))
    assert part.meters()["recalled"] == 0  # one chunk from an empty past
    part(sequence(2, 200, 8))
    assert 0.1 < part.meters()["recalled"] < 1
    part.depth = 0.0
    slow = part.meters()["recalled"]
    part(sequence(2, 200, 8))
    assert part.meters()["recalled"] < slow


def test_positions_double_the_state():
    assert build().state_bytes(2, 1) == 2 * build(positions=False).state_bytes(2, 100_000) == 2 * 2 * 8 * 4 * 8


@pytest.mark.parametrize(("arguments", "named"), [({"heads": 3}, "heads=3"), ({"depth": 1.5}, "depth=1.5")])
def test_what_does_not_fit_is_refused(arguments, named):
    with pytest.raises(PacelineError, match=named):
        TransNormer(8, **arguments)
