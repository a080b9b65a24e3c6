"""Facts about the decoder skeleton: one function of the ids, however it is fed, and costs that are declared truly."""

import math

import pytest
import torch
from _tiny import PLANS, VOCABULARY, model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from paceline.lm.decoder import Decoder
from paceline.mixers._contract import Flops, Mixer

LENGTH = 20
PLAN = pytest.mark.parametrize("plan", PLANS)


def ids(batch: int = 3, length: int = LENGTH, seed: int = 5) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=1e-9)


@PLAN
@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, LENGTH - 1)))
def test_logits_are_the_same_in_whole_and_through_any_chunks(plan, cuts):
    lm, text = model(plan).double(), ids()
    with torch.no_grad():
        whole = lm.logits(text)
        assert close(lm(text, None)[0], whole)
        state, pieces = None, []
        for chunk in text.tensor_split(sorted(cuts), dim=1):
            logits, state = lm(chunk, state)
            pieces.append(logits)
    assert close(torch.cat(pieces, dim=1), whole)
    assert state.length == LENGTH


@PLAN
def test_every_chunk_matters(plan):
    """A guard for the test above: the state is not idle."""
    lm, text = model(plan).double(), ids()
    with torch.no_grad():
        _, state = lm(text[:, :9], None)
        after, fresh = lm(text[:, 9:], state)[0], lm(text[:, 9:], None)[0]
    assert not torch.allclose(after, fresh, atol=1e-3)


@PLAN
def test_a_state_may_be_continued_again_and_again(plan):
    lm, text = model(plan).double(), ids()
    with torch.no_grad():
        _, state = lm(text[:, :8], None)
        for other in (ids(seed=1), ids(seed=2), text):
            ends = other[:, 8:]
            assert close(lm(ends, state)[0], lm.logits(torch.cat((text[:, :8], ends), dim=1))[:, 8:])
    assert state.length == 8


@PLAN
def test_a_fork_shares_no_memory_with_its_state(plan):
    lm, text = model(plan).double(), ids()
    with torch.no_grad():
        _, state = lm(text[:, :8], None)
        fork = state.fork()
        assert close(lm(text[:, 8:], fork)[0], lm.logits(text)[:, 8:])
        for layer in fork.layers:
            for tensor in layer.values():
                tensor.zero_()
        assert close(lm(text[:, 8:], state)[0], lm.logits(text)[:, 8:])


@PLAN
def test_selected_rows_continue_their_own_sequences(plan):
    lm, text = model(plan).double(), ids()
    rows = torch.tensor([2, 0, 2, 1])
    with torch.no_grad():
        _, state = lm(text[:, :8], None)
        chosen = state.select(rows)
        assert close(lm(text[rows, 8:], chosen)[0], lm.logits(text[rows])[:, 8:])
    assert (chosen.length, state.layers[0].keys()) == (8, chosen.layers[0].keys())


@PLAN
@pytest.mark.parametrize("length", [1, 4, LENGTH])
def test_declared_state_bytes_are_those_held(plan, length):
    lm = model(plan)
    with torch.no_grad():
        _, state = lm(ids(3, length), None)
    assert lm.state_bytes(3, length) == state.nbytes > 0


@PLAN
@pytest.mark.parametrize("length", [LENGTH, 130])
def test_declared_products_are_those_counted(plan, length):
    lm, text = model(plan), ids(1, length)  # one sequence: what SeqBoat pads in a batch is not declared
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        lm.logits(text)
    assert lm.flops(1, length).products == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_products_of_a_batch_are_those_counted_where_they_do_not_depend_on_data():
    for plan in ("attention", "ema", "lightning"):
        lm, text = model(plan), ids(4)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            lm.logits(text)
        assert lm.flops(4, LENGTH).products == pytest.approx(counter.get_total_flops(), rel=0.02), plan


class Spy(Mixer):
    """Returns what it got plus one, and remembers it."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model

    def forward(self, x: Tensor) -> Tensor:
        self.got = x.detach()
        return x + 1

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        return {}

    def extend(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self(x), state

    def state_bytes(self, batch: int, length: int) -> int:
        return 0

    def flops(self, batch: int, length: int) -> Flops:
        return Flops(0.0, 7.0)


class WholeLayer(Spy):
    is_layer = True


def test_a_mixer_that_is_a_layer_gets_no_norm_and_no_residual():
    torch.manual_seed(0)
    lm, text = Decoder(VOCABULARY, [WholeLayer(16)], hidden=0).double(), ids()
    x = lm.embedding(text) * 4
    assert close(lm.logits(text), (lm.norm(x + 1) @ lm.embedding.weight.T))
    assert close(lm.mixers[0].got, x)
    assert close(lm(text, None)[0], lm.logits(text))


def test_any_other_mixer_gets_norm_and_residual():
    torch.manual_seed(0)
    lm, text = Decoder(VOCABULARY, [Spy(16)], hidden=0).double(), ids()
    x = lm.embedding(text) * 4
    normed = x / x.square().mean(-1, keepdim=True).sqrt()
    logits = lm.logits(text)
    assert torch.allclose(lm.mixers[0].got, normed, atol=1e-5)
    assert torch.allclose(logits, lm.norm(x + normed + 1) @ lm.embedding.weight.T, atol=1e-5)


def test_costs_of_the_layers_add_up():
    lm = Decoder(VOCABULARY, [Spy(16), WholeLayer(16)], hidden=8)
    head, feed_forwards = 2 * 3 * 5 * VOCABULARY * 16, 2 * 6 * 3 * 5 * 16 * 8
    assert lm.flops(3, 5) == Flops(head + feed_forwards, 14.0)
    assert lm.flops(3, 5).total == head + feed_forwards + 14


@PLAN
def test_logits_at_the_start_have_about_unit_scale(plan):
    """But for the token itself, whose embedding is still in the stream."""
    lm, text = model(plan, vocabulary=300), ids()
    with torch.no_grad():
        logits = lm.logits(text).scatter(-1, text.unsqueeze(-1), math.nan)
    others = logits[~logits.isnan()]
    assert 0.7 < others.std() < 1.4
    assert others.mean().abs() < 0.2


def test_meters_name_their_layer():
    lm = model("hybrid")
    assert lm.meters() == {}
    lm.logits(ids())
    assert list(lm.meters()) == ["activated.2"]
