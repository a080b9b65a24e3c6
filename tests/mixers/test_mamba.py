"""Facts about Mamba: the scan over tiles, its start, what selection does, and that foreign weights fit."""

import pytest
import torch
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.mixers import _scan
from paceline.mixers.mamba import Mamba, naive_mamba


def build(d_model=8, **options):
    torch.manual_seed(0)
    return Mamba(d_model, **options).double()


def sequence(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [16, 17, 32, 75])
def test_gradients_of_the_scan_are_those_of_its_numbers_over_any_tiles(length, monkeypatch):
    monkeypatch.setattr(_scan, "TILE", 1)  # tiles of 16 tokens, the least
    inputs = [sequence(length, 1, 2).exp(), sequence(length, 1, 2), sequence(length, 1, 2), sequence(length, 1, 2)]
    inputs += [-sequence(2, 2).exp(), sequence(1, 2, 2)]
    assert torch.autograd.gradcheck(_scan.selective_scan, [z.requires_grad_() for z in inputs])


@torch.no_grad()
def test_many_tiles_equal_the_recurrence():
    part, x = build(), sequence(1, 600, 8)  # 256 tokens a tile at this size
    assert close(part(x), naive_mamba(part, x), x.dtype)


def test_there_is_no_second_derivative():
    part, x = build(), sequence(1, 5, 8).requires_grad_()
    (slope,) = torch.autograd.grad(part(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_the_start_is_the_authors():
    part = build(64)
    assert close(part.A_log.exp(), torch.arange(1.0, 17).double().expand(128, 16), torch.float32)
    steps = functional.softplus(part.dt_proj.bias)
    assert steps.min() > 0.99e-3 and steps.max() < 1.01e-1 and steps.max() > 10 * steps.min()
    assert part.dt_proj.weight.abs().max() <= 4**-0.5 and part.rank == 4
    assert [name for name, p in part.named_parameters() if hasattr(p, "hints")] == ["A_log", "D"]


@torch.no_grad()
def test_a_token_without_a_step_leaves_no_trace_and_fades_nothing():
    part, x = build(d_conv=1), sequence(1, 20, 8)
    state = part.extend(x, part.initial_state(1))[1]
    part.dt_proj.bias.fill_(-1e4)
    part.dt_proj.weight.zero_()
    after = part.extend(sequence(1, 9, 8, seed=2), state)[1]
    assert state["h"].abs().max() > 0 and torch.equal(after["h"], state["h"])


@torch.no_grad()
def test_a_large_step_forgets_the_past():
    part, x = build(d_conv=1), sequence(1, 20, 8)
    part.dt_proj.bias.fill_(1e3)
    past = part.extend(100 * sequence(1, 5, 8, seed=2), part.initial_state(1))[1]
    assert past["h"].abs().max() > 0 and close(part.extend(x, past)[0], part(x), x.dtype)


@torch.no_grad()
def test_takes_the_weights_of_transformers_and_gives_its_numbers():
    models = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    config = models.MambaConfig(hidden_size=16, state_size=4, num_hidden_layers=1, use_mambapy=False)
    torch.manual_seed(0)
    theirs = models.MambaMixer(config, 0).eval()
    ours = Mamba(16, d_state=4)
    ours.load_state_dict(theirs.state_dict())
    x = sequence(2, 70, 16).float()
    assert close(ours(x), theirs(x), x.dtype)


@pytest.mark.parametrize("option", ["d_state", "d_conv", "expand", "dt_rank"])
def test_a_size_below_one_is_refused(option):
    with pytest.raises(PacelineError, match=f"mamba: {option}=0"):
        Mamba(8, **{option: 0})
