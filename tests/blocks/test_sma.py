"""Facts about Sparse Modular Activation: packing is exact, gates are probabilities, and the idle cost nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from paceline.blocks.sma import SMA, LatentConfigurator, compress, extract, pack
from paceline.blocks.swiglu import SwiGLU
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close

WIDTH = 6
masks = st.integers(1, 4).flatmap(
    lambda batch: st.integers(1, 12).flatmap(
        lambda length: st.lists(
            st.lists(st.booleans(), min_size=length, max_size=length), min_size=batch, max_size=batch
        )
    )
)


class Refuses(nn.Module):
    """A module that must not be called."""

    def forward(self, x):
        raise AssertionError("called with nothing activated")


class RunningSum(nn.Module):
    """A causal mixer."""

    def forward(self, x):
        return x.cumsum(dim=1)


def sequence(*shape, seed=0):
    return torch.randn(*shape, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def undecided(configurator):
    """Take the head start away, so that some tokens go each way."""
    nn.init.zeros_(configurator.logits.bias)
    return configurator


def wrap(module, seed=0):
    torch.manual_seed(seed)
    part = SMA(module, WIDTH).double()
    undecided(part.configurator)
    return part


def force(part, option):
    """Make every token take this option, with a probability of exactly 1."""
    with torch.no_grad():
        part.configurator.logits.weight.zero_()
        part.configurator.logits.bias.copy_(torch.tensor([1e4, 0.0] if option == 0 else [0.0, 1e4]))
    return part


@settings(max_examples=60, deadline=None, derandomize=True)
@given(masks)
def test_compress_and_extract_are_inverse_on_activated_rows(rows):
    active = torch.tensor(rows)
    packing, x = pack(active), sequence(*active.shape)
    counts = active.sum(1)
    packed = compress(x, packing)
    assert packed.shape[1] == counts.max() and torch.equal(packing.valid.sum(1), counts)
    for row, count in enumerate(counts.tolist()):
        assert torch.equal(packed[row, :count], x[row, active[row]])  # in order, at the front
        assert (packed[row, count:] == 0).all() and not packing.valid[row, count:].any()
        assert torch.equal(packing.source[row, :count], active[row].nonzero().flatten())
    if packed.shape[1]:
        back = extract(packed, packing)
        assert torch.equal(back, x * active.unsqueeze(-1))  # and zero elsewhere
        assert torch.equal(compress(back, packing), packed)
        noisy = torch.where(packing.valid.unsqueeze(-1), packed, 1e9)
        assert torch.equal(extract(noisy, packing), back)  # what a module makes of padding is dropped


def test_gradients_of_packing_go_to_the_rows_they_came_from():
    active = torch.tensor([[True, False, True, True], [False, False, True, False]])
    packing, x = pack(active), sequence(2, 4).requires_grad_()
    weights = sequence(2, 3, seed=1)
    (compress(x, packing) * weights).sum().backward()
    assert torch.equal(x.grad[0, [0, 2, 3]], weights[0]) and torch.equal(x.grad[1, 2], weights[1, 0])
    assert (x.grad[~active] == 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_nothing_active_does_not_call_the_module(training):
    part, x = force(wrap(Refuses()), 0).train(training), sequence(2, 9)
    assert torch.equal(part(x), torch.zeros_like(x))
    assert part.meters() == {"activated": 0.0}
    with pytest.raises(AssertionError, match="called"):
        force(part, 1)(x)


@pytest.mark.parametrize("module", [nn.Linear(WIDTH, WIDTH), SwiGLU(WIDTH, 10), RunningSum(), nn.LayerNorm(WIDTH)])
def test_everything_active_is_the_module_itself(module):
    part, x = force(wrap(module), 1), sequence(2, 9)
    assert torch.equal(part(x), module(x)) and part.meters() == {"activated": 1.0}
    with torch.no_grad():
        part.configurator.logits.bias.copy_(torch.tensor([0.0, 0.5]))
    gate = 1 / (1 + torch.exp(-0.5 / part.configurator.theta.exp()))
    assert close(part(x), module(x) * gate, x.dtype)


@pytest.mark.parametrize("module", [nn.Linear(WIDTH, WIDTH), SwiGLU(WIDTH, 10), RunningSum()])
def test_a_module_sees_the_activated_tokens_and_no_others(module):
    part, x = wrap(module), sequence(3, 30)
    y = part(x)
    active = part.gates > 0
    assert 0 < active.sum() < active.numel()
    for row in range(3):
        expected = module(x[row, active[row]].unsqueeze(0))[0] * part.gates[row, active[row]].unsqueeze(-1)
        assert close(y[row, active[row]], expected, x.dtype)
    assert (y[~active] == 0).all()
    assert part.meters() == {"activated": pytest.approx(active.double().mean().item())}


def test_the_gate_is_the_probability_of_option_one_where_it_wins():
    torch.manual_seed(0)
    part, h = undecided(LatentConfigurator(WIDTH, temperature=0.3)).double(), sequence(4, 50)
    assert part.theta.exp().item() == pytest.approx(0.3 * WIDTH**0.5, rel=1e-6)
    logits = part.logits(h)
    probability = (logits / part.theta.exp()).softmax(-1)[..., 1]
    wins = logits.argmax(-1) == 1
    gates = part(h)
    assert close(gates, probability * wins, h.dtype)
    assert (gates[wins] > 0.5).all() and (gates[~wins] == 0).all() and 0 < wins.sum() < wins.numel()


def test_at_the_start_nearly_every_token_is_activated_and_the_decision_is_slow():
    torch.manual_seed(0)
    part = LatentConfigurator(32)
    assert (part(torch.randn(4, 500, 32)) > 0).double().mean() > 0.85
    assert all(parameter.hints["lr_scale"] == 0.1 for parameter in part.parameters())


def test_a_tie_is_not_an_activation():
    part = undecided(LatentConfigurator(WIDTH))
    with torch.no_grad():
        part.logits.weight.zero_()
    assert (part(torch.randn(1, 5, WIDTH)) == 0).all()


def test_half_precision_decides_in_fp32():
    part = LatentConfigurator(WIDTH).bfloat16()
    assert part(sequence(1, 5).bfloat16()).dtype == torch.float32


def test_the_configurator_learns_through_activated_tokens_only():
    part, x = wrap(nn.Linear(WIDTH, WIDTH)), sequence(2, 30).requires_grad_()
    y = part(x)
    active = part.gates > 0
    configurator = list(part.configurator.parameters())
    from_active = torch.autograd.grad(y[active].sum(), configurator, retain_graph=True)
    assert all((g != 0).any() for g in from_active)
    from_idle = torch.autograd.grad(y[~active].sum(), [x, *configurator])
    assert all((g == 0).all() for g in from_idle)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_divides_nothing_is_refused(temperature):
    with pytest.raises(PacelineError, match="temperature"):
        LatentConfigurator(WIDTH, temperature)
