"""One protocol for every model: after any reads, forks, rewinds and selections, decoding goes on as from scratch."""

from typing import Any

import pytest
import torch
from _foreign import FOREIGN, SINGLE, foreign
from _lms import LEAN, lean
from _tiny import PLANS, VOCABULARY, model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.read_end import read_end
from paceline.core.state import LM, State

KEEP = 6
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(1, 5)),
        st.tuples(st.just("rewind"), st.integers(0, KEEP)),
        st.tuples(st.just("select"), st.lists(st.integers(0, 1), min_size=2, max_size=2)),
        st.tuples(st.just("fork"), st.none()),
    ),
    min_size=2,
    max_size=8,
)
MODELS = [*PLANS, *FOREIGN, *LEAN]


@pytest.fixture(scope="module", params=MODELS, ids=str)
def any_lm(request: pytest.FixtureRequest) -> tuple[LM, float]:
    """Paceline's own plans, and Hugging Face models of several architectures, made on the spot; in float64.

    With each, how far logits may be apart that are the same.
    """
    if request.param in LEAN:
        return lean(LEAN[request.param]), 1e-9
    if request.param in FOREIGN:
        return foreign(request.param), 2e-6 if request.param in SINGLE else 1e-9
    return model(request.param).double(), 1e-9


@pytest.fixture
def lm(any_lm: tuple[LM, float]) -> LM:
    return any_lm[0]


def scratch(lm: LM, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return lm(ids, None)[0]


def draw(count: int, seed: int) -> Tensor:
    return torch.randint(VOCABULARY, (2, count), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
@torch.no_grad()
def test_any_walk_ends_as_from_scratch(any_lm: tuple[LM, float], steps: list[tuple[str, Any]]) -> None:
    lm, rounding = any_lm
    seen = draw(3, 0)
    logits, state = lm(seen, None)
    state, furthest = state.keeping(KEEP), 3
    for number, (kind, value) in enumerate(steps, 1):
        before = state
        if kind == "read":
            new = draw(value, number)
            seen = torch.cat((seen, new), dim=1)
            logits, state = lm(new, state)
            assert logits.shape[1] == value
            assert torch.allclose(logits, scratch(lm, seen)[:, -value:], rtol=0, atol=rounding)
            end, alike = read_end(lm, new, before)
            assert end.shape[1] == 1 and torch.allclose(end, logits[:, -1:], rtol=0, atol=rounding)
            state = alike if number % 2 else state
            furthest = max(furthest, state.length)
            assert state.length - state.kept <= max(3, furthest - KEEP)  # the first three were not kept
        elif kind == "rewind" and value <= state.kept:
            seen = seen[:, : seen.shape[1] - value]
            state = state.rewind(value)
        elif kind == "select":
            rows = torch.tensor(value)
            seen, state = seen[rows], state.select(rows)
        elif kind == "fork":
            state = state.fork()
            lm(draw(4, 99), before)  # what its twin reads is nothing to it
        assert state.length == seen.shape[1]
    new = draw(2, 77)
    expected = scratch(lm, torch.cat((seen, new), dim=1))[:, -2:]
    assert torch.allclose(lm(new, state)[0], expected, rtol=0, atol=rounding)


@torch.no_grad()
def test_what_is_not_kept_cannot_be_taken_back(lm: LM) -> None:
    _, state = lm(draw(9, 0), None)
    if state.kept == 9:  # it is cut, not kept
        with pytest.raises(PacelineError, match="Cannot take back 10 tokens of 9"):
            state.rewind(10)
        return
    with pytest.raises(PacelineError, match="Cannot take back 1 tokens, 0 are kept"):
        state.rewind(1)
    state = state.keeping(2)
    for step in range(5):
        _, state = lm(draw(1, step), state)
    with pytest.raises(PacelineError, match="Cannot take back 3 tokens, 2 are kept"):
        state.rewind(3)
    assert state.rewind(2).length == 12 and state.rewind(1).rewind(1).length == 12


@torch.no_grad()
def test_an_old_state_stays_as_it_was(lm: LM) -> None:
    first, second = draw(5, 0), draw(4, 1)
    _, state = lm(first, None)
    before = [tensor.clone() for layer in state.layers for tensor in layer.values()]
    expected = lm(second, state)[0]
    after = [tensor for layer in state.layers for tensor in layer.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(lm(second, state)[0], expected)


@torch.no_grad()
def test_a_state_of_another_model_or_batch_is_refused(lm: LM) -> None:
    _, own = lm(draw(3, 0), None)
    with pytest.raises(PacelineError, match="state is of 2 sequences and cannot go on with 1"):
        lm(draw(3, 0)[:1], own)
    for name in PLANS:
        other = model(name).double()
        if getattr(lm, "kind", None) == other.kind:
            continue
        with pytest.raises(PacelineError, match="state is another model's"):
            other(draw(3, 0), own)
        with pytest.raises(PacelineError, match="state is another model's"):
            lm(draw(3, 0), other(draw(3, 0), None)[1])


def test_the_bytes_of_what_is_kept_are_counted_once() -> None:
    k = torch.zeros(1, 8)
    state = State(({"k": k},), 4).keeping(3)
    after = state.after(torch.zeros(1, 2, dtype=torch.long), ({"k": k},))
    assert state.nbytes == k.nbytes and after.nbytes == k.nbytes + 2 * 8
