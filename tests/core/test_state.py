"""Facts about a model's state: forks are independent, rows are selected, bytes are counted."""

import pytest
import torch

from paceline.core.state import State


def build():
    recurrent = {"h": torch.arange(12.0).view(3, 4)}
    attention = {"k": torch.arange(6).view(3, 2, 1), "valid": torch.tensor([[True], [False], [True]])}
    return State((recurrent, attention), length=7)


def test_bytes_are_those_of_all_tensors():
    assert build().nbytes == 12 * 4 + 6 * 8 + 3
    assert State((), 0).nbytes == 0


def test_a_fork_is_equal_and_independent():
    state = build()
    fork = state.fork()
    assert fork.length == 7 and fork.nbytes == state.nbytes
    for ours, theirs in zip(state.layers, fork.layers, strict=True):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    fork.layers[0]["h"].zero_()
    assert torch.equal(state.layers[0]["h"], build().layers[0]["h"])


def test_rows_are_selected_in_order_and_may_repeat():
    state = build()
    chosen = state.select(torch.tensor([2, 0, 2, 2]))
    assert chosen.length == 7 and chosen.nbytes == state.nbytes // 3 * 4
    for ours, theirs in zip(state.layers, chosen.layers, strict=True):
        assert all(torch.equal(theirs[name], ours[name][[2, 0, 2, 2]]) for name in ours)
    chosen.layers[0]["h"].zero_()
    assert torch.equal(state.layers[0]["h"], build().layers[0]["h"])


def test_a_row_that_is_not_there_is_an_error():
    with pytest.raises(IndexError):
        build().select(torch.tensor([3]))


def test_the_state_itself_cannot_be_reassigned():
    with pytest.raises(AttributeError):
        build().length = 8
