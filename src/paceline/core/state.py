"""What decoding needs of a causal language model: one protocol, one state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.errors import PacelineError


@dataclass(frozen=True)
class State:
    """What a model remembers of `length` tokens: keys and values, recurrent vectors, or both, layer by layer.

    Models never change a state in place, so keeping one is keeping a point to return to.
    """

    layers: Sequence[Mapping[str, Tensor]]
    """Per layer, named tensors with the batch first."""
    length: int
    """Tokens seen."""
    facts: Any = None
    """What the model notes besides, the same for every sequence."""
    of: str = ""
    """Which kind of model it is a state of."""
    keep: int = 0
    """How many tokens before the furthest one read can be taken back at least."""
    trail: tuple[tuple["State", Int[Tensor, "b t"]], ...] = ()
    """Earlier states, oldest first, each with the tokens read after it."""
    pending: Int[Tensor, "b m"] | None = None
    """Tokens that count as seen but that `layers` know nothing of yet: the model reads them with its next ones."""

    @property
    def nbytes(self) -> int:
        """Bytes held, those to go back to included; memory that states share counts once."""
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in self._tensors() if tensor.nbytes}.values())

    @property
    def batch(self) -> int:
        """Sequences."""
        return len(next(self._tensors()))

    @property
    def kept(self) -> int:
        """How many tokens can be taken back now."""
        if self.trail:
            return self.length - self.trail[0][0].length
        return 0 if self.pending is None else self.pending.shape[1]

    def keeping(self, tokens: int) -> "State":
        """The same, which from here on can take back up to `tokens` tokens, one read at a time or in pieces.

        The state before each read is kept for it. What is taken back in the middle of a read is read anew with the next
        tokens up to that point: exact for every model, recurrent ones too, at the price of those tokens.
        """
        return replace(self, keep=tokens, trail=self.trail if tokens else ())

    def rewind(self, tokens: int) -> "State":
        """The state as it was `tokens` tokens ago.

        Raises:
            PacelineError: fewer are kept.
        """
        target = self.length - tokens
        unread = 0 if self.pending is None else self.pending.shape[1]
        if 0 <= tokens <= unread and self.pending is not None:
            return replace(self, length=target, pending=self.pending[:, : unread - tokens] if tokens < unread else None)
        if tokens == 0:
            return self
        for index in range(len(self.trail) - 1, -1, -1):
            before, read = self.trail[index]
            if before.length <= target < self.length:
                again = read[:, : target - before.length] if target > before.length else None
                return replace(before, length=target, keep=self.keep, trail=self.trail[:index], pending=again)
        raise PacelineError(f"Cannot take back {tokens} tokens, {self.kept} are kept: ask for more by keeping() first.")

    def fork(self) -> "State":
        """An independent copy."""
        return self._map(torch.clone)

    def select(self, rows: Int[Tensor, " k"]) -> "State":
        """The state of these sequences of the batch, in this order; rows may repeat (beams)."""
        return self._map(lambda tensor: tensor.index_select(0, rows))

    def check(self, of: str, ids: Int[Tensor, "b t"]) -> None:
        """For models: refuse what is not their own, or not of as many sequences as `ids`.

        Raises:
            PacelineError: it is another model's state, or another batch's.
        """
        if self.of != of:
            raise PacelineError("This state is another model's: give this model its own, or None to begin.")
        first = next(self._tensors(), None)
        if first is not None and len(first) != len(ids):
            raise PacelineError(
                f"This state is of {len(first)} sequences and cannot go on with {len(ids)}: select some."
            )

    def to_read(self, ids: Int[Tensor, "b t"]) -> Int[Tensor, "b r"]:
        """For models: the r >= t tokens to read after `layers` when `ids` are given."""
        return ids if self.pending is None else torch.cat((self.pending, ids), dim=1)

    def after(self, read: Int[Tensor, "b r"], layers: Sequence[Mapping[str, Tensor]], facts: Any = None) -> "State":
        """For models: the state once `read`, which `to_read` gave, has led from these layers to others."""
        unread = 0 if self.pending is None else self.pending.shape[1]
        start = State(self.layers, self.length - unread, self.facts, self.of)
        length = start.length + read.shape[1]
        trail = (*self.trail, (start, read)) if self.keep else ()
        while len(trail) > 1 and trail[1][0].length <= length - self.keep:
            trail = trail[1:]
        return State(layers, length, facts, self.of, self.keep, trail)

    def _tensors(self) -> Iterator[Tensor]:
        for layer in self.layers:
            yield from layer.values()
        for before, read in self.trail:
            yield from before._tensors()
            yield read
        if self.pending is not None:
            yield self.pending

    def _map(self, change: Callable[[Tensor], Tensor]) -> "State":
        return replace(
            self,
            layers=tuple({name: change(tensor) for name, tensor in layer.items()} for layer in self.layers),
            trail=tuple((before._map(change), change(read)) for before, read in self.trail),
            pending=None if self.pending is None else change(self.pending),
        )


@runtime_checkable
class LM(Protocol):
    """A causal language model: `logits, state = lm(ids, state)`."""

    vocab_size: int

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None) -> tuple[Float[Tensor, "b t v"], State]:
        """Logits of the token after each of `ids`, which follow `state` (None: the beginning)."""
        ...

    def initial_state(self, batch: int) -> State:
        """The empty past of `batch` sequences."""
        ...
