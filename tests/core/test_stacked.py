"""A stack of layers is a value: what was taken from it stays, whatever is written after it."""

import pytest
import torch
from torch import Tensor

from paceline.core.growing import Growing, append
from paceline.core.stacked import LEAST, Stacked, stack_of, stacked

NAMES = ("k", "v")


def layers(tokens: int) -> list[dict[str, Tensor]]:
    return [{name: torch.randn(1, 2, tokens, 4) for name in NAMES} for _ in range(3)]


def write(stack: Stacked, tokens: int, value: float) -> Stacked:
    """`tokens` more, all `value`, put where `places` says, as the loops do."""
    after = stack.room(tokens)
    assert after.places.shape == (len(after), 4)
    for index in range(len(after)):
        for kind, name in enumerate(NAMES):
            tensor = after[index][name]
            assert after.places[index, 2 * kind] == tensor.data_ptr()
            assert after.places[index, 2 * kind + 1] * 4 == tensor.stride(1)
            tensor[:, :, stack.tokens :] = value
    return after


def test_it_has_what_was_stacked() -> None:
    given = layers(5)
    stack = stacked(given, NAMES)
    assert len(stack) == 3 and stack.tokens == 5 and stacked(stack, NAMES) is stack
    for one, other in zip(stack, given, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in NAMES)
    assert (
        torch.equal(stack[1:][0]["k"], given[1]["k"])
        and isinstance(stack[:3], Stacked)
        and torch.equal(stack[-1]["v"], given[2]["v"])
    )
    with pytest.raises(IndexError):
        stack[3]


def test_what_follows_the_layers_stays_with_them() -> None:
    given, more = layers(5), {"empty": torch.tensor([4])}
    both = stacked(given, NAMES).followed([more])
    assert len(both) == 4 and both[3] is both[-1] is more and both[3:] == (more,)
    assert len(both[:3]) == 3 and both[:3].tokens == 5 and torch.equal(both[-2]["k"], given[2]["k"])
    back = Growing(both, 5, of="test").rewind(2).layers
    assert back[3] is more and torch.equal(back[0]["k"], given[0]["k"][:, :, :3])


def test_steps_write_in_place_until_the_buffer_is_full() -> None:
    stack = write(stacked(layers(5), NAMES), 1, 1.0)
    address = stack.places[0, 0]
    while stack.tokens < LEAST:
        stack = write(stack, 1, 1.0)
        assert stack.places[0, 0] == address
    first = stack[0]["k"].clone()
    stack = write(stack, 1, 2.0)
    assert stack.places[0, 0] != address and torch.equal(stack[0]["k"][:, :, :LEAST], first)


@pytest.mark.parametrize("kept", ["stack", "tensor"])
def test_two_ways_on_from_one_state_do_not_meet(kept: str) -> None:
    start = stacked(layers(5), NAMES)
    held: list[Stacked | Tensor] = []
    one = write(start, 2, 1.0)
    held.append(one if kept == "stack" else one[1]["v"])
    del one
    other = write(start, 2, 2.0)
    mine = held[0][1]["v"] if isinstance(held[0], Stacked) else held[0]
    assert (mine[:, :, 5:] == 1.0).all() and (other[1]["v"][:, :, 5:] == 2.0).all()  # type: ignore[call-overload, index]


def test_taking_back_goes_on_in_place_where_nobody_kept_what_was_taken_back() -> None:
    state = Growing(write(stacked(layers(5), NAMES), 3, 1.0), 8, of="test")
    assert state.nbytes == 3 * 2 * 2 * 8 * 4 * 4 and state.batch == 1
    back = state.rewind(3)
    assert isinstance(back.layers, Stacked) and back.layers.tokens == back.length == 5
    kept = write(back.layers, 1, 2.0)
    assert kept.places[0, 0] != back.layers.places[0, 0]  # `state` lives, and has three tokens more
    del state, kept
    assert write(back.layers, 1, 2.0).places[0, 0] == back.layers.places[0, 0]


def test_layers_that_were_taken_out_are_cut_together_and_those_of_two_stacks_alone() -> None:
    stack, other = (write(stacked(layers(5), NAMES), 3, 1.0) for _ in range(2))
    back = Growing(tuple(stack), 8, of="test").rewind(4)
    assert isinstance(back.layers, Stacked) and torch.equal(back.layers[2]["v"], stack[2]["v"][:, :, :4])
    mixed = Growing((*stack[:2], other[2]), 8, of="test").rewind(4)
    for at, (layer, whole) in enumerate(zip(mixed.layers, (stack, stack, other), strict=True)):
        assert all(torch.equal(layer[name], whole[at][name][:, :, :4]) for name in NAMES)


@pytest.mark.parametrize("token", [0, 3, 7])
def test_a_token_is_dropped_from_a_copy(token: int) -> None:
    stack = write(stacked(layers(5), NAMES), 3, 1.0)
    left = stack.without(token)
    assert left.tokens == 7 and left.places[0, 0] != stack.places[0, 0]
    for layer, whole in zip(left, stack, strict=True):
        for name in NAMES:
            assert torch.equal(layer[name], torch.cat((whole[name][:, :, :token], whole[name][:, :, token + 1 :]), 2))
    assert write(left, 1, 2.0).places[0, 0] == left.places[0, 0] and (stack[0]["k"][:, :, 7] == 1.0).all()


def test_rows_are_selected_as_of_any_state() -> None:
    given = [{name: torch.randn(3, 2, 5, 4) for name in NAMES} for _ in range(3)]
    more = {"empty": torch.tensor([4, 5, 6])}
    state = Growing(stacked(given, NAMES).followed([more]), 5, of="test")
    rows = torch.tensor([2, 0, 0, 1])
    chosen, expected = state.select(rows), Growing((*given, more), 5, of="test").select(rows)
    assert isinstance(chosen.layers, Stacked) and chosen.batch == 4 and len(chosen.layers) == 4
    for one, other in zip(chosen.layers, expected.layers, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert chosen.layers[:3].room(1).places[0, 0] == chosen.layers[:3].places[0, 0]  # there is room
    copy = state.fork()
    assert copy.layers[0]["k"].data_ptr() != state.layers[0]["k"].data_ptr()


def grow(old: list[dict[str, Tensor]] | Stacked, value: float) -> list[dict[str, Tensor]]:
    """A token more, layer by layer, as a model does that goes through its layers one by one."""
    new = torch.full((1, 2, 1, 4), value)
    return [{name: append(tensor, new) for name, tensor in layer.items()} for layer in old]


def test_layers_that_grow_one_by_one_are_a_stack_again() -> None:
    start = stacked(layers(5), NAMES)
    grown = grow(start, 1.0)
    whole = stack_of(grown)
    assert whole is not None and whole.tokens == 6 and whole.places[0, 0] == start.places[0, 0]
    assert all((layer[name][:, :, 5] == 1.0).all() for layer in write(whole, 1, 2.0) for name in NAMES)
    assert stack_of(grown[1:]) is None and stack_of(grown[:2]) is None and stack_of(layers(5)) is None
    assert stack_of([*grown, {}]).more == ({},)  # type: ignore[union-attr]
    assert stack_of([grown[0], *start[1:]]) is None


def test_two_ways_on_do_not_meet_layer_by_layer() -> None:
    start = stacked(layers(5), NAMES)
    one, other = grow(start, 1.0), grow(start, 2.0)
    for value, grown in ((1.0, one), (2.0, other)):
        assert all((layer[name][:, :, 5] == value).all() for layer in grown for name in NAMES)
    kept = one[2]["v"]
    append(start[2]["v"], torch.full((1, 2, 1, 4), 3.0))
    assert (kept[:, :, 5] == 1.0).all()


def test_a_way_that_was_given_up_half_way_leaves_nothing() -> None:
    start = stacked(layers(5), NAMES)
    lost = append(start[0]["k"], torch.full((1, 2, 1, 4), 9.0))
    grown = grow(start, 1.0)
    assert all((layer[name][:, :, 5] == 1.0).all() for layer in grown for name in NAMES)
    assert (lost[:, :, 5] == 9.0).all() and stack_of(grown) is not None
