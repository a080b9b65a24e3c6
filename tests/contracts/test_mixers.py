"""The contract of the mixers, for every file of the family: a new one is tested without an edit here."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from paceline.core.discovery import load, methods, part
from paceline.core.tolerances import close
from paceline.mixers._contract import Mixer

CASES = [(method, index) for method in methods("mixers") for index in range(len(load("mixers", method).example()))]
LENGTHS = (1, 2, 7, 63, 64, 65, 130)  # about the chunks and blocks of 16, 64 and 128
PRECISIONS = (torch.float64, torch.float32)
WIDTH = 8

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
every_precision = pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
every_length = pytest.mark.parametrize("length", LENGTHS)


def build(case, dtype=torch.float64, seed=0):
    """A fresh instance and its naive twin."""
    torch.manual_seed(seed)
    mixer, twin = load("mixers", case[0]).example()[case[1]]
    return mixer.to(dtype), twin


def sequence(*shape, dtype=torch.float64, seed=1):
    return torch.randn(*shape, WIDTH, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def gradients(mixer, run, x):
    """Output, and the gradient of a fixed random projection of it to the input and to every parameter."""
    mixer.zero_grad()
    x = x.clone().requires_grad_()
    y = run(x)
    (y * sequence(*y.shape[:2], dtype=y.dtype, seed=2)).sum().backward()
    return y.detach(), {"x": x.grad, **{name: p.grad for name, p in mixer.named_parameters()}}


def same_gradients(ours, theirs, dtype):
    """Names of the gradients that differ; one that cancels to a hundredth of the others is judged by that."""
    assert ours.keys() == theirs.keys()
    typical = torch.cat([g.flatten() for g in theirs.values() if g is not None]).square().mean().sqrt().item()
    missing = {name for name in ours if (ours[name] is None) != (theirs[name] is None)}
    both = [name for name in ours if ours[name] is not None and theirs[name] is not None]
    return missing | {name for name in both if not close(ours[name], theirs[name], dtype, least=typical / 100)}


def run_in_chunks(mixer, x, sizes):
    """Outputs and the states at every boundary."""
    states, outputs = [mixer.initial_state(x.shape[0])], []
    for piece in x.split(sizes, dim=1):
        y, after = mixer.extend(piece, states[-1])
        outputs.append(y)
        states.append(after)
    return torch.cat(outputs, dim=1), states


def same_state(ours, theirs, dtype):
    assert ours.keys() == theirs.keys()
    return all(close(ours[name].to(dtype), theirs[name].to(dtype), dtype) for name in ours)


@pytest.mark.parametrize("method", methods("mixers"))
def test_a_method_is_a_mixer_with_examples(method):
    examples = load("mixers", method).example()
    assert examples
    for mixer, twin in examples:
        assert isinstance(mixer, Mixer) and type(mixer) is part("mixers", method) and callable(twin)
        assert mixer.d_model == WIDTH


@every_case
@every_length
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_shape_dtype_and_finite(case, length, dtype):
    mixer, _ = build(case, dtype)
    x = sequence(3, length, dtype=dtype)
    y, state = mixer.extend(x, mixer.initial_state(3))
    for output in (mixer(x), y):
        assert output.shape == x.shape and output.dtype == dtype and output.isfinite().all()
    assert all(tensor.shape[0] == 3 for tensor in state.values())


@every_case
@pytest.mark.parametrize("length", [7, 65, 130])
def test_causal_under_a_perturbed_future(case, length):
    mixer, _ = build(case)
    x = sequence(2, length)
    y = mixer(x)
    for last in {0, 2, length // 2, length - 2}:
        changed = x.clone()
        changed[:, last + 1 :] = 100 * sequence(2, length - last - 1, seed=3)
        after = mixer(changed)
        assert close(after[:, : last + 1], y[:, : last + 1], x.dtype)
        assert not torch.equal(after[:, last + 1], y[:, last + 1])


@every_case
@pytest.mark.parametrize("length", [7, 65, 130])
def test_no_gradient_reaches_the_future(case, length):
    mixer, _ = build(case)
    for at in {0, 5, length // 2, length - 1}:
        x = sequence(2, length).requires_grad_()
        mixer(x)[:, at].sum().backward()
        assert (x.grad[:, at + 1 :] == 0).all() and (x.grad[:, at] != 0).any()


@every_case
@every_precision
@every_length
def test_equals_the_naive_twin_on_outputs_and_gradients(case, dtype, length):
    mixer, twin = build(case, dtype)
    x = sequence(2, length, dtype=dtype)
    y, ours = gradients(mixer, mixer, x)
    expected, theirs = gradients(mixer, lambda z: twin(mixer, z), x)
    assert close(y, expected, dtype)
    assert same_gradients(ours, theirs, dtype) == set()


@every_case
@every_precision
@settings(max_examples=12, deadline=None, derandomize=True)
@given(sizes=st.lists(st.one_of(st.integers(1, 5), st.integers(1, 80)), min_size=1, max_size=6))
def test_whole_equals_chunks_from_every_state(case, dtype, sizes):
    mixer, _ = build(case, dtype)
    x = sequence(2, sum(sizes), dtype=dtype)
    whole, chunked = mixer(x), run_in_chunks(mixer, x, sizes)
    assert close(chunked[0], whole, dtype)
    assert same_state(chunked[1][-1], mixer.extend(x, mixer.initial_state(2))[1], dtype)


@every_case
@every_precision
def test_whole_equals_step_by_step(case, dtype):
    mixer, _ = build(case, dtype)
    x = sequence(2, 70, dtype=dtype)
    y, states = run_in_chunks(mixer, x, [1] * 70)
    assert close(y, mixer(x), dtype)
    for length in (1, 3, 66):  # a state from steps is the state from one piece, and goes on as it
        _, state = mixer.extend(x[:, :length], mixer.initial_state(2))
        assert same_state(states[length], state, dtype)
        assert close(mixer.extend(x[:, length:], states[length])[0], y[:, length:], dtype)


@every_case
def test_gradients_flow_through_states(case):
    mixer, _ = build(case)
    x = sequence(2, 75)
    y, whole = gradients(mixer, mixer, x)
    chunked, ours = gradients(mixer, lambda z: run_in_chunks(mixer, z, [3, 1, 64, 7])[0], x)
    assert close(chunked, y, x.dtype) and same_gradients(ours, whole, x.dtype) == set()


@every_case
def test_old_states_stay_valid(case):
    mixer, _ = build(case)
    _, states = run_in_chunks(mixer, sequence(2, 74), [5, 1, 68])
    for state in states:
        before = copy.deepcopy({name: tensor.detach() for name, tensor in state.items()})
        one = mixer.extend(sequence(2, 9, seed=4), state)
        other = mixer.extend(sequence(2, 4, seed=5), state)
        again = mixer.extend(sequence(2, 9, seed=4), state)
        assert all(torch.equal(state[name], before[name]) for name in state)
        assert torch.equal(one[0], again[0]) and all(torch.equal(one[1][name], again[1][name]) for name in one[1])
        assert not torch.equal(one[0][:, :4], other[0])


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_declared_state_bytes_are_what_is_held(case, dtype):
    mixer, _ = build(case, dtype)
    for batch in (1, 3):
        sizes = [1, 1, 1, 2, 60, 66]
        _, states = run_in_chunks(mixer, sequence(batch, sum(sizes), dtype=dtype), sizes)
        for length, state in zip((0, 1, 2, 3, 5, 65, 131), states, strict=True):
            declared = mixer.state_bytes(batch, length)
            assert sum(tensor.nbytes for tensor in state.values()) == declared
            storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state.values()}
            assert sum(storages.values()) == declared  # no view keeps more alive


@every_case
@pytest.mark.parametrize("length", [1, 7, 65])
def test_padded_and_batched_equal_alone(case, length):
    mixer, _ = build(case)
    x = sequence(4, 130)
    alone = [mixer(x[row : row + 1, :length]) for row in range(4)]
    assert close(mixer(x)[:, :length], torch.cat(alone), x.dtype)  # the rest of x is the padding
    y, state = mixer.extend(x[:, :length], mixer.initial_state(4))
    assert close(y, torch.cat(alone), x.dtype)
    for row in range(4):
        _, single = mixer.extend(x[row : row + 1, :length], mixer.initial_state(1))
        assert same_state({name: tensor[row : row + 1] for name, tensor in state.items()}, single, x.dtype)


@every_case
def test_packed_equals_alone(case):
    mixer, _ = build(case)
    lengths = (5, 1, 66, 3)
    pieces = [sequence(1, length, seed=length) for length in lengths]
    documents = torch.repeat_interleave(torch.tensor([3, 3000, 0, 7]), torch.tensor(lengths))
    packed = mixer.packed(torch.cat(pieces, dim=1), documents)
    assert close(packed, torch.cat([mixer(piece) for piece in pieces], dim=1), packed.dtype)


@every_case
def test_every_parameter_gets_a_gradient(case):
    reached = set()
    for seed in range(4):  # a part that chooses tokens may choose none of one draw
        mixer, _ = build(case, seed=seed)
        _, found = gradients(mixer, mixer, sequence(4, 40, seed=seed))
        assert all(g.isfinite().all() for g in found.values() if g is not None)
        reached |= {name for name, g in found.items() if g is not None and (g != 0).any()}
    assert reached == {"x", *(name for name, _ in mixer.named_parameters())}


def counted(mixer, x):
    """Products that torch counts; by the plain form of attention, as the counter does not know the CPU's fused one."""
    with sdpa_kernel([SDPBackend.MATH]), FlopCounterMode(display=False) as counter, torch.no_grad():
        mixer(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("length", [1, 100, 256])
@pytest.mark.parametrize("method", methods("mixers"))
def test_declared_products_at_the_default_size(method, length):
    torch.manual_seed(0)
    mixer = part("mixers", method)(64)
    measured = counted(mixer, torch.randn(2, length, 64))
    assert mixer.flops(2, length).products == pytest.approx(measured, rel=0.02)


@every_case
@pytest.mark.parametrize("length", [7, 256])
def test_declared_products_of_the_examples(case, length):
    mixer, _ = build(case)
    measured = counted(mixer, sequence(3, length))
    cost = mixer.flops(3, length)
    assert cost.products == pytest.approx(measured, rel=0.02)
    assert cost.other >= 0 and cost.total == cost.products + cost.other


@every_case
def test_meters_are_shares_and_the_trace_is_of_tokens(case):
    mixer, _ = build(case)
    mixer(sequence(2, 30))
    assert all(0 <= value <= 1 for value in mixer.meters().values())
    gates = mixer.trace()
    if gates is not None:
        assert gates.shape == (2, 30) and not gates.requires_grad and ((gates >= 0) & (gates <= 1)).all()
        assert mixer.meters()["activated"] == pytest.approx((gates > 0).double().mean().item())


@pytest.fixture
def poisoned_memory():
    """Uninitialised memory is filled with NaN, and operations without a deterministic form are refused."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


@every_case
def test_nothing_depends_on_uninitialised_memory(case, poisoned_memory):
    assert torch.empty(3).isnan().all()
    mixer, _ = build(case)
    x = sequence(3, 70)
    y, found = gradients(mixer, mixer, x)
    again, second = gradients(mixer, mixer, x)
    assert y.isfinite().all() and torch.equal(y, again)
    assert all(g is None or (g.isfinite().all() and torch.equal(g, second[name])) for name, g in found.items())
    chunked, states = run_in_chunks(mixer, x, [1, 30, 39])
    assert close(chunked, y, x.dtype) and all(t.isfinite().all() for state in states for t in state.values())


@every_case
def test_saved_weights_are_the_whole_part(case):
    mixer, _ = build(case)
    other, _ = build(case, seed=9)
    x = sequence(2, 30)
    assert not torch.equal(mixer(x), other(x))
    with torch.device("meta"):  # as Hugging Face builds a model: what is not among the weights is lost
        bare, _ = build(case)
    bare.load_state_dict(mixer.state_dict(), assign=True)
    other.load_state_dict(mixer.state_dict(), strict=True)
    assert torch.equal(mixer(x), other(x)) and torch.equal(mixer(x), bare(x))


@every_case
def test_the_layout_of_the_input_does_not_matter(case):
    mixer, _ = build(case)
    x = sequence(2, 70)
    assert close(mixer(x.transpose(0, 1).contiguous().transpose(0, 1)), mixer(x), x.dtype)


@pytest.mark.parametrize("method", methods("mixers"))
def test_sizes_can_be_counted_without_memory(method):
    with torch.device("meta"):
        empty = part("mixers", method)(64)
    real = part("mixers", method)(64)
    assert all(p.is_meta for p in empty.parameters())
    assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
