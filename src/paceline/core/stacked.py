"""What all layers of a model remember, as one buffer that grows along its tokens: as `core/growing.py`, layers at once.

A step of one token that goes through thirty layers tensor by tensor waits longer for Python than for its arithmetic.
"""

import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEAST = 64
"""Tokens of the smallest buffer."""


class _Buffer:
    """The numbers, and which stacks are the front of them."""

    def __init__(self, numbers: Float[Tensor, "layers kinds b g n s"]) -> None:
        self.numbers = numbers
        self.living: list[weakref.ref[Stacked]] = []

    @cached_property
    def places(self) -> Int[Tensor, "layers p"]:
        """Of each kind, side by side, the address and the tokens that it has room for."""
        layers, kinds, tokens = *self.numbers.shape[:2], self.numbers.shape[4]
        starts = torch.arange(layers * kinds) * (self.numbers.stride(1) * self.numbers.element_size())
        starts += self.numbers.data_ptr()
        return torch.stack((starts, torch.full_like(starts, tokens)), dim=1).view(layers, 2 * kinds)


class Stacked(Sequence[Mapping[str, Tensor]]):
    """A state's layers, each a mapping of tensors (b, g, n, s), made when they are asked for; then `more`, as given.

    A value: `room` writes behind it only where no living stack, nor a tensor that came from one, reaches further.
    """

    def __init__(
        self, names: tuple[str, ...], buffer: _Buffer, tokens: int, more: tuple[Mapping[str, Tensor], ...] = ()
    ) -> None:
        self.names, self.tokens, self.more, self._buffer = names, tokens, more, buffer
        self._next: tuple[weakref.ref[Stacked], set[tuple[int, int]]] | None = None
        buffer.living = [entry for entry in buffer.living if entry() is not None]
        buffer.living.append(weakref.ref(self))

    def __len__(self) -> int:
        """Layers, and what comes after them."""
        return len(self._buffer.numbers) + len(self.more)

    def __getitem__(self, index: Any) -> Any:
        """One layer, or a sequence of some."""
        if isinstance(index, slice):
            some, layers = range(len(self))[index], len(self._buffer.numbers)
            return self.followed(()) if some == range(layers) else tuple(self[i] for i in some)
        at = range(len(self))[index]
        if at >= len(self._buffer.numbers):
            return self.more[at - len(self)]
        return {name: self._tensor((at, kind)) for kind, name in enumerate(self.names)}

    def _tensor(self, place: tuple[int, int]) -> Tensor:
        tensor = self._buffer.numbers[place].narrow(2, 0, self.tokens)
        tensor.stack = self, place  # type: ignore[attr-defined]  # while the tensor lives, so does what it is of
        return tensor

    @property
    def places(self) -> Int[Tensor, "layers p"]:
        """Of each kind, side by side, its address and the tokens that it has room for."""
        return self._buffer.places

    def room(self, tokens: int) -> "Stacked":
        """The layers with so many more tokens, which are still to be written."""
        end, buffer = self.tokens + tokens, self._buffer
        further = any((other := entry()) is not None and other.tokens > self.tokens for entry in buffer.living)
        if further or end > buffer.numbers.shape[4]:
            buffer = _grown(buffer.numbers.narrow(4, 0, self.tokens), end)
        return Stacked(self.names, buffer, end)

    def longer(self, place: tuple[int, int], tokens: int) -> Tensor:
        """One tensor, of a layer and a kind, with so many more tokens to be written: those of all places that are asked
        for one after the other are of one stack again."""
        after = self._next[0]() if self._next else None
        if after is None or after.tokens != self.tokens + tokens or self._next is None or place in self._next[1]:
            after = self.room(tokens)
            self._next = weakref.ref(after), set()
        self._next[1].add(place)
        return after._tensor(place)

    def front(self, tokens: int) -> "Stacked":
        """The first tokens."""
        return Stacked(self.names, self._buffer, tokens, self.more)

    def without(self, token: int) -> "Stacked":
        """All tokens but this one: a copy, with room."""
        left = self.blank(self.tokens - 1)
        for at, start, count in ((0, 0, token), (token, token + 1, left.tokens - token)):
            left._buffer.numbers.narrow(4, at, count).copy_(self._buffer.numbers.narrow(4, start, count))
        return left

    def blank(self, tokens: int) -> "Stacked":
        """As many layers of so many tokens, with room, which are still to be written."""
        return Stacked(self.names, _blank(self._buffer.numbers, tokens), tokens, self.more)

    def followed(self, more: Sequence[Mapping[str, Tensor]]) -> "Stacked":
        """The layers, with this after them."""
        return Stacked(self.names, self._buffer, self.tokens, tuple(more))

    def select(self, rows: Int[Tensor, " k"]) -> "Stacked":
        """See `State.select`; copied once, with room."""
        numbers = self._buffer.numbers
        shape = [*numbers.shape[:2], len(rows), *numbers.shape[3:]]
        chosen = numbers.new_empty(shape)
        front = numbers.narrow(4, 0, self.tokens)
        torch.index_select(front, 2, rows, out=chosen.narrow(4, 0, self.tokens))
        more = tuple({name: x.index_select(0, rows) for name, x in layer.items()} for layer in self.more)
        return Stacked(self.names, _Buffer(chosen), self.tokens, more)


def stacked(layers: Sequence[Mapping[str, Tensor]], names: tuple[str, ...]) -> Stacked:
    """These tensors of each layer, all of one shape, as a stack; what is of one already is not copied."""
    whole = stack_of(layers)
    if whole is not None and whole.names == names and not whole.more:
        return whole
    numbers = torch.stack([torch.stack([layer[name] for name in names]) for layer in layers])
    tokens = numbers.shape[4]
    return Stacked(names, _grown(numbers, tokens), tokens)


def stack_of(layers: Sequence[Mapping[str, Tensor]]) -> Stacked | None:
    """The stack that these are the layers of, and `more` of none, or None."""
    if isinstance(layers, Stacked) or not layers:
        return layers or None  # type: ignore[return-value]
    stack, _ = getattr(next(iter(layers[0].values()), None), "stack", (None, None))
    if stack is None or len(layers) < len(stack) - len(stack.more):
        return None
    depth = len(stack) - len(stack.more)
    for at, layer in enumerate(layers[:depth]):
        if tuple(layer) != stack.names:
            return None
        for kind, tensor in enumerate(layer.values()):
            if getattr(tensor, "stack", None) != (stack, (at, kind)):
                return None
    return stack.followed(layers[depth:])


def followed(layers: Sequence[Mapping[str, Tensor]], more: Sequence[Mapping[str, Tensor]]) -> Any:
    """These layers with this after them."""
    return layers.followed(more) if isinstance(layers, Stacked) else (*layers, *more)


def _grown(numbers: Tensor, tokens: int) -> _Buffer:
    buffer = _blank(numbers, tokens)
    buffer.numbers.narrow(4, 0, numbers.shape[4]).copy_(numbers)
    return buffer


def _blank(like: Tensor, tokens: int) -> _Buffer:
    shape = list(like.shape)
    shape[4] = max(LEAST, tokens + tokens // 2)
    return _Buffer(like.new_empty(shape))
