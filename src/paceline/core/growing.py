"""Tensors that grow along their tokens in amortised constant time and still behave as values.

`append(old, new)` writes behind `old` where `old` is the front of a buffer with room and no living tensor reaches
further into it; otherwise it copies into a larger buffer. So a loop of single tokens copies each token about twice,
not once a step, while whoever keeps an earlier tensor keeps what it was.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.stacked import LEAST, stack_of
from paceline.core.state import State

TOKENS = 2
"""The dimension of the tokens: (batch, heads, tokens, width)."""


def append(old: Tensor, new: Tensor) -> Tensor:
    """`old` (b, h, n, s) followed by `new` (b, h, t, s), as the front of a buffer; no gradient flows through it."""
    grown = room(old, new.shape[TOKENS])
    grown.narrow(TOKENS, old.shape[TOKENS], new.shape[TOKENS]).copy_(new)
    return grown


def room(old: Tensor, tokens: int) -> Tensor:
    """`old` (b, h, n, s) followed by `tokens` more that are still to be written."""
    if hasattr(old, "stack"):  # it is of a layer of those that grow together
        stack, place = old.stack
        longer: Tensor = stack.longer(place, tokens)
        return longer
    end = old.shape[TOKENS] + tokens
    buffer = old._base
    if buffer is None or not _free(buffer, old, end):
        shape = list(old.shape)
        shape[TOKENS] = max(LEAST, end + end // 2)
        buffer = old.new_empty(shape)
        buffer.narrow(TOKENS, 0, old.shape[TOKENS]).copy_(old)
    return _front(buffer, end)


def front(old: Tensor, tokens: int) -> Tensor:
    """The first `tokens` tokens of `old`; what is behind them may be overwritten once `old` is gone."""
    buffer = old._base
    if buffer is None or not hasattr(buffer, "living"):  # a view of something else
        return old.narrow(TOKENS, 0, tokens).clone()
    return _front(buffer, tokens)


def _front(buffer: Tensor, tokens: int) -> Tensor:
    view = buffer.narrow(TOKENS, 0, tokens)
    living: list[tuple[weakref.ref[Tensor], int]] = getattr(buffer, "living", [])
    living = [entry for entry in living if entry[0]() is not None]
    living.append((weakref.ref(view), tokens))
    buffer.living = living  # type: ignore[attr-defined]
    return view


def _free(buffer: Tensor, old: Tensor, end: int) -> bool:
    """Whether `old` is a front of this buffer, with room up to `end` that no living tensor sees."""
    living: list[tuple[weakref.ref[Tensor], int]] | None = getattr(buffer, "living", None)
    if living is None or end > buffer.shape[TOKENS] or old.data_ptr() != buffer.data_ptr():
        return False
    if old.shape[:TOKENS] != buffer.shape[:TOKENS] or old.shape[TOKENS + 1 :] != buffer.shape[TOKENS + 1 :]:
        return False
    here = old.shape[TOKENS]
    return all(length <= here or view() is None for view, length in living)


@dataclass(frozen=True)
class Growing(State):
    """The state of a model that remembers every token apart: taking tokens back is cutting, and all are kept.

    Tensors of four dimensions have the tokens along the third; others do not depend on the tokens.
    """

    @property
    def kept(self) -> int:
        """Everything."""
        return self.length

    def keeping(self, tokens: int) -> "Growing":
        """The same: all is kept anyway."""
        return self

    def select(self, rows: Int[Tensor, " k"]) -> State:
        """See `State.select`."""
        whole = stack_of(self.layers)
        if whole is not None:
            return replace(self, layers=whole.select(rows))
        return super().select(rows)

    def rewind(self, tokens: int) -> "Growing":
        """The state as it was `tokens` tokens ago.

        Raises:
            PacelineError: there were not as many.
        """
        if not 0 <= tokens <= self.length:
            raise PacelineError(f"Cannot take back {tokens} tokens of {self.length}.")
        if tokens == 0:
            return self
        left = self.length - tokens
        whole = stack_of(self.layers)
        if whole is not None:
            return replace(self, length=left, layers=whole.front(left))
        return replace(self, length=left, layers=tuple(_cut(layer, left) for layer in self.layers))


def _cut(layer: Mapping[str, Tensor], tokens: int) -> Mapping[str, Tensor]:
    return {name: front(value, tokens) if value.ndim == 4 else value for name, value in layer.items()}


def empty(batch: int, heads: int, width: int, like: Tensor) -> Tensor:
    """(batch, heads, 0, width) of the type and device of `like`."""
    return torch.empty(batch, heads, 0, width, dtype=like.dtype, device=like.device)
