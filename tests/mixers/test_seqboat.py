"""Facts about SeqBoat: who attends, what the memory holds, where positions come from, and what is skipped."""

import pytest
import torch
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.mixers.seqboat import SeqBoat, naive_seqboat

SURE = 1e4  # a logit whose softmax is 1 in every precision


class Scripted(torch.nn.Module):
    """A configurator that activates the tokens it is told, with the gates it is told."""

    def __init__(self, gates):
        super().__init__()
        self.gates, self.at = torch.as_tensor(gates, dtype=torch.float64), 0
        self.logits = torch.nn.Linear(1, 1)  # for the declared cost

    def forward(self, h):
        gates = self.gates[:, self.at : self.at + h.shape[1]]
        self.at += h.shape[1]
        return gates


def build(seed=0, **options):
    torch.manual_seed(seed)
    mixer = SeqBoat(**{"d_model": 8, "memory": 3, "key_width": 4, "value_width": 6, "dims": 3, **options}).double()
    if mixer.configurator is not None:
        torch.nn.init.zeros_(mixer.configurator.logits.bias)  # some tokens each way
    return mixer


def script(mixer, gates):
    mixer.configurator = Scripted(gates)
    return mixer


def sequence(*shape, seed=1):
    return torch.randn(*shape, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def branches(mixer, x):
    """H and G."""
    h = functional.silu(mixer.ema(mixer.norm(x)))
    return h, mixer.branch(h)


def refuse_to_run(*_):
    raise AssertionError("the attention unit was run")


def test_a_token_that_is_not_activated_gets_the_branch_alone():
    mixer, x = build(), sequence(3, 40)
    y = mixer(x)
    idle = mixer.trace() == 0
    assert 0 < idle.sum() < idle.numel()
    alone = functional.silu(x + branches(mixer, x)[1])
    assert torch.equal(y[idle], alone[idle])
    assert (y[~idle] != alone[~idle]).any(dim=-1).all()


@pytest.mark.parametrize("training", [True, False])
def test_with_nothing_activated_the_unit_is_not_run_and_costs_nothing(training):
    mixer, x = script(build(), torch.zeros(2, 30)), sequence(2, 30)
    mixer.unit.forward = mixer.unit.project = refuse_to_run
    mixer.train(training)
    y = mixer(x)
    assert torch.equal(y, functional.silu(x + branches(mixer, x)[1]))
    assert mixer.meters() == {"activated": 0.0}
    h = 2.0 * 2 * 30 * (8 * 8 + 1)
    assert mixer.flops(2, 30).products == mixer.ema.products(2, 30) + h
    mixer.configurator.at = 0
    _, state = mixer.extend(x, mixer.initial_state(2))
    assert not state["valid"].any() and state["position"].tolist() == [30, 30]


def test_a_hand_built_layer_of_two_tokens():
    mixer = script(build(), [[0.75, 0.5]])
    x = sequence(1, 2)
    h, g = branches(mixer, x)
    z, r, v = functional.silu(mixer.unit.inner(h)).split((4, 6, 6), dim=-1)
    q, k = (z[0] * mixer.unit.scale[i] + mixer.unit.shift[i] for i in (0, 1))

    def turn(vector, position):
        pairs = torch.view_as_complex(vector.reshape(2, 2))
        angles = torch.tensor([position * 1.0, position * 0.01]).double()
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten()

    own, earlier = turn(q[1], 1) @ turn(k[1], 1), turn(q[1], 1) @ turn(k[0], 0)
    weights = torch.stack((earlier, own)).div(2.0).softmax(0)  # sqrt(4) = 2
    mixed = torch.stack((v[0, 0], weights @ v[0]))
    o = mixer.unit.outer(mixed * r[0]) * torch.tensor([[0.75], [0.5]])
    expected = functional.silu(x + g + o)
    assert close(mixer(x), expected, torch.float32)  # the precision of the angles


def test_always_is_the_dense_layer_with_gate_one():
    dense, sparse, x = build(always=True), build(), sequence(2, 50)
    sparse.load_state_dict(dense.state_dict(), strict=False)
    with torch.no_grad():
        sparse.configurator.logits.bias.copy_(torch.tensor([-SURE, SURE]))
    assert torch.equal(dense(x), sparse(x))
    assert (dense.trace() == 1).all() and (sparse.trace() == 1).all()
    assert sum(p.numel() for p in sparse.parameters()) - sum(p.numel() for p in dense.parameters()) == 2 * 8 + 2 + 1


def test_memory_counts_activated_tokens_and_not_positions():
    active = [0, 1, 2, 500, 900, 999]
    gates = torch.zeros(1, 1000)
    gates[0, active] = 0.8
    mixer, x = script(build(), gates), sequence(1, 1000)
    h = branches(mixer, x)[0].detach().requires_grad_()
    attended, _ = mixer._attend(h, torch.zeros(1, dtype=torch.long), None)
    attended[0, 999].sum().backward()
    reached = h.grad[0].abs().amax(dim=-1).nonzero().flatten().tolist()
    assert reached == [2, 500, 900, 999]  # itself and the three activated before it, 997 positions back


@pytest.mark.parametrize("squared_relu", [False, True])
def test_positions_are_the_original_ones(squared_relu):
    """Idle tokens in between change a score by the rotary distance, as computed from the original positions."""
    near, far = torch.zeros(1, 60), torch.zeros(1, 60)
    near[0, [10, 11]], far[0, [10, 45]] = 1.0, 1.0
    mixer = build(squared_relu=squared_relu)
    if squared_relu:
        with torch.no_grad():
            mixer.unit.scale[1] = mixer.unit.scale[0]  # scores above 0, which squared ReLU lets through
    h = torch.zeros(1, 60, 8).double()
    h[:, [10, 11, 45]] = sequence(1, 2)[:, [0, 1, 1]]
    outputs = {}
    for name, gates, last in (("near", near, 11), ("far", far, 45)):
        attended, _ = script(mixer, gates)._attend(h, torch.zeros(1, dtype=torch.long), None)
        q, k, v, r = mixer.unit.project(h[:, [10, last]], torch.tensor([[10, last]]))
        scores = (k @ q[0, 1])[0]
        weights = (scores / 3).relu().square() if squared_relu else (scores / 2).softmax(0)
        outputs[name] = attended[0, last]
        assert close(outputs[name], mixer.unit.outer((weights @ v[0]) * r[0, 1]), torch.float64)
    assert not close(outputs["near"], outputs["far"], torch.float64)


def test_shifting_everything_shifts_the_output():
    gates = torch.zeros(1, 90).double()
    gates[0, [3, 8, 9, 20]] = 0.7
    mixer, h = build(), sequence(1, 90)
    start = torch.zeros(1, dtype=torch.long)
    plain, _ = script(mixer, gates)._attend(h, start, None)
    shifted, _ = script(mixer, gates.roll(40, 1))._attend(h.roll(40, 1), start, None)
    assert close(shifted.roll(-40, 1), plain, torch.float32)  # rotary sees differences only; fp32 angles


@pytest.mark.parametrize("sizes", [[1] * 24, [5, 1, 12, 6], [24]])
def test_rows_that_activate_at_different_times_stream_alike(sizes):
    gates = torch.zeros(4, 24).double()
    gates[0, :8] = 0.9  # early
    gates[1, 16:] = 0.6  # late
    gates[2, ::5] = 0.7  # now and then; row 3 never
    mixer, x = build(), sequence(4, 24)
    whole = script(mixer, gates)(x)
    for row in range(4):
        assert close(script(mixer, gates[row : row + 1])(x[row : row + 1]), whole[row : row + 1], x.dtype)
    script(mixer, gates)
    state, outputs, at = mixer.initial_state(4), [], 0
    for piece in x.split(sizes, dim=1):
        y, state = mixer.extend(piece, state)
        outputs.append(y)
        at += piece.shape[1]
        kept = (gates[:, :at] > 0).sum(1).clamp(max=3)
        assert torch.equal(state["valid"].sum(1), kept) and state["position"].tolist() == [at] * 4
        assert (state["valid"].long().diff(dim=1) >= 0).all()  # what is in use stands at the end
        assert (state["k"][~state["valid"]] == 0).all()
    assert close(torch.cat(outputs, dim=1), whole, x.dtype)


def test_the_naive_twin_keeps_to_the_same_script():
    gates = (torch.rand(2, 70, generator=torch.Generator().manual_seed(3)) < 0.3).double() * 0.6
    mixer, x = build(), sequence(2, 70)
    assert close(script(mixer, gates)(x), naive_seqboat(script(mixer, gates), x), x.dtype)


def test_the_gate_is_the_probability_of_the_option_taken():
    mixer, x = build(), sequence(2, 40)
    mixer(x)
    h, _ = branches(mixer, x)
    logits = mixer.configurator.logits(h) / mixer.configurator.theta.exp()
    probability = logits.softmax(-1)[..., 1]
    active = logits[..., 1] > logits[..., 0]
    assert close(mixer.trace(), probability * active, x.dtype)
    assert mixer.meters() == {"activated": pytest.approx(active.double().mean().item())}


def test_the_temperature_starts_at_c_times_the_root_of_the_width():
    assert build(temperature=0.3).configurator.theta.exp().item() == pytest.approx(0.3 * 8**0.5, rel=1e-6)


def test_batches_are_billed_for_the_rows_that_are_run():
    gates = torch.zeros(2, 100)
    gates[0, :50], gates[1, :10] = 1.0, 1.0
    mixer = script(build(), gates)
    mixer(sequence(2, 100))
    assert mixer.meters() == {"activated": pytest.approx(0.3)}
    beside = mixer.ema.products(2, 100) + 2.0 * 2 * 100 * (8 * 8 + 1)
    assert mixer.flops(2, 100).products - beside == mixer.unit.flops(2, 50)


def test_the_state_does_not_grow_and_the_layer_brings_its_own_norm():
    mixer = build()
    assert mixer.state_bytes(2, 1) == mixer.state_bytes(2, 100_000)
    assert mixer.is_layer


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"memory": 0}, "memory=0 holds nothing"),
        ({"memory": -3}, "memory=-3"),
        ({"key_width": 5}, "must be even, not 5"),
        ({"key_width": 0}, "key_width=0"),
        ({"value_width": 0}, "value_width=0"),
        ({"value_width": -2}, "value_width=-2"),
        ({"dims": 0}, "dims=0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(options, says):
    with pytest.raises(PacelineError, match=says):
        build(**options)
