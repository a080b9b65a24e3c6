"""Facts about the gated scan and the short convolution: compiled or not, the same numbers, each where it should be."""

import pytest
import torch

from paceline.core.tolerances import close
from paceline.mixers import _scan
from paceline.mixers._conv_numba import CompiledConvolution
from paceline.mixers._numba import ALONE, jobs
from paceline.mixers._scan_numba import CompiledScan
from paceline.mixers.mamba import Mamba, naive_mamba

SIZES = [(1, 1, 1, 1), (75, 3, 5, 37), (32, 1, 2, 40), (300, 2, 16, 130)]


def drawn(length, batch, states, width, dtype):
    """delta, x, z, B, C, A, D, h."""
    generator = torch.Generator().manual_seed(length)

    def draw(*shape):
        return torch.randn(*shape, dtype=dtype, generator=generator)

    tokens = batch, length
    inputs = [draw(*tokens, size) for size in (width, width, width, states, states)]
    return [inputs[0].exp(), *inputs[1:], -draw(states, width).exp(), draw(width), draw(batch, states, width)]


def outcome(run, inputs):
    """Outputs and all gradients."""
    inputs = [z.clone().requires_grad_() for z in inputs]
    outputs = run(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(y.sin().sum() + y.square().sum() for y in outputs).backward()
    return [*(y.detach() for y in outputs), *(z.grad for z in inputs)]


def both_agree(run, inputs, monkeypatch):
    """Whether compiled loops and torch give the same."""
    assert _scan.compilable(*inputs)
    compiled = outcome(run, inputs)
    monkeypatch.setattr(_scan, "compilable", lambda *_: False)
    return all(
        close(ours, theirs, inputs[0].dtype) for ours, theirs in zip(compiled, outcome(run, inputs), strict=True)
    )


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_both_paths_of_the_scan_agree_on_outputs_and_gradients(size, dtype, threads, monkeypatch):
    inputs = drawn(*size, dtype)
    assert inputs[-1].numel() * size[0] > ALONE or size != SIZES[-1]  # the largest is shared among threads
    assert both_agree(_scan.gated_scan, inputs, monkeypatch)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("length", "past", "width"), [(1, 3, 1), (2, 3, 40), (75, 0, 37), (500, 3, 130)])
def test_both_paths_of_the_convolution_agree(length, past, width, dtype, threads, monkeypatch):
    generator = torch.Generator().manual_seed(length)
    shapes = [(2, length, width), (2, past, width), (past + 1, width), (width,)]
    inputs = [torch.randn(*shape, dtype=dtype, generator=generator) for shape in shapes]
    assert both_agree(_scan.short_convolution, inputs, monkeypatch)


def test_gradients_are_those_of_the_numbers():
    inputs = [z.requires_grad_() for z in drawn(35, 2, 2, 3, torch.float64)]
    assert torch.autograd.gradcheck(CompiledScan.apply, inputs)
    x, _, _, before, *_, bias, _ = drawn(5, 2, 3, 3, torch.float64)
    weight = torch.ones(4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        CompiledConvolution.apply, [z.requires_grad_() for z in (x, before[:, :3], weight, bias)]
    )


@pytest.mark.parametrize(
    ("batch", "width", "threads"), [(1, 512, 2), (4, 512, 2), (3, 40, 2), (1, 7, 8), (5, 100, 64), (2, 2000, 1)]
)
def test_jobs_cover_every_channel_of_every_sequence_once(batch, width, threads):
    covered = [(row, channel) for row, low, high in jobs(batch, width, threads) for channel in range(low, high)]
    assert sorted(covered) == [(row, channel) for row in range(batch) for channel in range(width)]


def test_a_decay_beyond_the_smallest_number_is_none():
    inputs = drawn(3, 1, 2, 20, torch.float32)
    inputs[0].fill_(1e6)
    y, after = CompiledScan.apply(*inputs)
    expected = inputs[3].unsqueeze(3) * (inputs[0] * inputs[1]).unsqueeze(2)
    assert close(after, expected[:, -1], torch.float32) and y.isfinite().all()


@pytest.mark.parametrize("gate", [-1e4, -200.0, 0.0, 200.0, 1e4])
def test_gates_of_any_size(gate, monkeypatch):
    inputs = drawn(3, 1, 2, 20, torch.float32)
    inputs[2].fill_(gate)
    y = CompiledScan.apply(*inputs)[0]
    monkeypatch.setattr(_scan, "compilable", lambda *_: False)
    assert (y - _scan.gated_scan(*inputs)[0]).abs().max() <= 1e-4 * max(abs(gate), 1)


@pytest.mark.parametrize("which", [1, 2], ids=["x", "z"])
def test_what_is_not_a_number_stays_so(which):
    inputs = drawn(40, 1, 2, 20, torch.float32)
    inputs[which][0, 5, 3] = torch.nan
    y, _ = CompiledScan.apply(*inputs)
    assert y[0, 5, 3].isnan() and y[:, :5].isfinite().all() and y[..., :3].isfinite().all()
    assert y[0, 6:, 3].isnan().all() == (which == 1)


def test_without_numba_the_tiles_are_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(_scan, "find_spec", lambda name: taken.append(name))
    _scan._has_numba.cache_clear()
    try:
        torch.manual_seed(0)
        part, x = Mamba(8).double(), torch.randn(2, 40, 8, dtype=torch.float64)
        assert close(part(x), naive_mamba(part, x), x.dtype)
        assert taken == ["numba"] and not _scan._has_numba()
    finally:
        _scan._has_numba.cache_clear()
