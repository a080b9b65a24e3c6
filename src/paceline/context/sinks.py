"""Attention sinks: the first tokens and a sliding window are kept, everything between is forgotten.

    kept = first `sinks` tokens, and the last ones up to `tokens` in all, the query's own included

The first tokens take the weight that a softmax has to put somewhere; dropping them breaks a model that was trained
without a window, keeping four repairs it. Each query reads at most `tokens` keys, in a prompt as in a step, so that
reading in pieces changes nothing. Memory 2 g s (tokens - 1) numbers a layer and sequence, whatever the length.

Departure: the paper numbers positions anew within the cache, so that texts may be longer than the model has positions.
Here keys keep the rotation of their true positions, as they arrive rotated; a text ends where the positions do.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from paceline.context._contract import Memory, Place, Policy, read
from paceline.context._rows import whole
from paceline.context._steps import Step, full_step
from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.growing import empty

PAPERS = (Source(title="Efficient Streaming Language Models with Attention Sinks", arxiv="2309.17453", year=2023),)


class Sinks(Policy):
    """Keeps the first tokens and the last.

    Args:
        tokens: how many a query reads at most, itself included.
        sinks: how many of them are the first ones.

    Raises:
        PacelineError: there is no room for a window.
    """

    pieces = "any"
    evicts = True

    def __init__(self, tokens: int = 256, sinks: int = 4) -> None:
        name = type(self).__name__
        whole(name, 1, tokens=tokens)
        whole(name, 0, sinks=sinks)
        if sinks >= tokens:
            raise PacelineError(f"{name}: {sinks} sinks leave no window in {tokens} tokens: give more tokens.")
        self.tokens, self.sinks = tokens, sinks

    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        """See `Policy.empty`."""
        return {"k": empty(batch, heads, width, like), "v": empty(batch, heads, width, like)}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory, place: Place) -> tuple[Tensor, Memory]:
        """See `Policy.attend`."""
        self.refuse_mask(place)
        held = memory["k"].shape[2]
        keys, values = torch.cat((memory["k"], k), dim=2), torch.cat((memory["v"], v), dim=2)
        mask = None if keys.shape[2] <= self.tokens else self._mask(held, q.shape[2], place.length, q.device)
        out = read(q, keys, values, mask)
        return out, {"k": self._kept(keys), "v": self._kept(values)}

    def step_quickly(self, step: Step, past: Sequence[Memory]) -> Sequence[Memory] | None:
        """See `Policy.step_quickly`. As long as the queries read everything; then the oldest but the sinks goes."""
        if type(self).attend is not Sinks.attend or past[0]["k"].shape[2] + step.tokens > self.tokens:
            return None
        after = full_step(step, past)
        return after.without(self.sinks) if after is not None and after.tokens == self.tokens else after

    def _mask(self, held: int, length: int, past: int, device: torch.device) -> Tensor:
        """(1, 1, t, held + t), by the true positions."""
        first = min(held, self.sinks)
        old = torch.arange(held, device=device)
        old = torch.where(old < first, old, old + past - held)
        new = torch.arange(past, past + length, device=device)
        keys, queries = torch.cat((old, new)), new.unsqueeze(1)
        near = keys > queries - (self.tokens - self.sinks)
        return ((keys <= queries) & (near | (keys < self.sinks)))[None, None]

    def _kept(self, x: Tensor) -> Tensor:
        """All but one of the tokens that the next query reads, which brings its own."""
        if x.shape[2] < self.tokens:
            return x
        window = self.tokens - 1 - self.sinks
        return torch.cat((x[:, :, : self.sinks], x[:, :, x.shape[2] - window :]), dim=2)


def full_budget(length: int) -> list[Policy]:
    """Settings at which it is full attention over `length` tokens."""
    return [Sinks(length, 2)]


def example() -> list[Policy]:
    """Small ones."""
    return [Sinks(6, 2), Sinks(5, 4)]
