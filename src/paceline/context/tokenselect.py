"""TokenSelect: every key is kept, and a step reads the tokens that its heads together vote for.

    vote  = sum over heads h of softmax(q_h K_h^T)            # over the tokens between sinks and window
    read    the first `sinks` tokens, the best of the vote, the last `local`: `tokens` in all, the same for all heads

The vote is held while queries stay alike: it is taken again where the cosine similarity of the query, all heads as one
vector, with the one that voted last falls below `threshold`. A step without a vote touches `tokens` keys and values of
n; one with a vote all keys besides. The memory is that of the full cache, and the last vote, which is part of the
state. As in the authors' code the softmax is of the bare products, without 1 / sqrt(s).

Departures: prompts are read in full (the authors also read them in chunks of 512, each choosing by its mean query).
Keys and queries keep their true rotary positions, where the authors turn them anew within the selection, which reads
texts longer than the model's positions; so here consecutive queries differ by their rotation too, and less is reused.
A read of several tokens at once forgets the vote.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paceline.context._chosen import read_tokens, voted_by
from paceline.context._contract import Memory, Place, Policy, read
from paceline.context._rows import gather, whole
from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.growing import append, empty

PAPERS = (
    Paper(
        title="TokenSelect: Efficient Long-Context Inference and Length Extrapolation for LLMs via Dynamic Token-Level "
        "KV Cache Selection",
        arxiv="2411.02886",
        year=2024,
        says="Single tokens chosen by a soft vote of the heads answer better than sinks with a window, or than blocks.",
    ),
)


class TokenSelect(Policy):
    """Keeps everything, reads tokens.

    Args:
        tokens: how many a query reads at most, itself included.
        sinks: how many of them are the first ones.
        local: how many are the last ones.
        threshold: of the cosine similarity of queries, from which the vote is held; above 1 each step votes.

    Raises:
        PacelineError: sinks and window leave nothing to vote for.
    """

    pieces = "several"

    def __init__(self, tokens: int = 256, sinks: int = 16, local: int = 64, threshold: float = 0.9) -> None:
        whole("TokenSelect", 1, tokens=tokens, local=local)
        whole("TokenSelect", 0, sinks=sinks)
        if sinks + local >= tokens:
            raise PacelineError(
                f"TokenSelect: {sinks} sinks and {local} last tokens leave nothing to choose of {tokens}: give more."
            )
        self.tokens, self.sinks, self.local, self.threshold = tokens, sinks, local, threshold
        self._read = self._held = 0.0
        self._steps = self._reused = 0

    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        """See `Policy.empty`. `voter` (b, h s) is the query that voted, `voted` (b, m) the tokens, in order."""
        nothing = empty(batch, heads, width, like)
        return {"k": nothing, "v": nothing.clone(), **self._no_vote(like, batch)}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory, place: Place) -> tuple[Tensor, Memory]:
        """See `Policy.attend`."""
        self.refuse_mask(place)
        keys, values = append(memory["k"], k), append(memory["v"], v)
        if place.layer == 0:
            self._clear()
        batch, groups, held, _ = keys.shape
        if q.shape[2] > 1 or held <= self.tokens:
            self._read, self._held = self._read + held, self._held + held
            return read(q, keys, values), {"k": keys, "v": values, **self._no_vote(q, batch)}
        voter, voted = self._vote(q, keys, memory, self._best)
        at = torch.arange(held, device=q.device).expand(batch, -1)
        tokens = torch.cat((at[:, : self.sinks], voted, at[:, held - self.local :]), dim=1)
        index = tokens.unsqueeze(1).expand(-1, groups, -1)
        out = read(q, gather(keys, index), gather(values, index))
        self._read, self._held = self._read + self.tokens, self._held + held
        return out, {"k": keys, "v": values, "voter": voter, "voted": voted}

    def attend_quickly(
        self, q: Tensor, k: Tensor, v: Tensor, memory: Memory, place: Place
    ) -> tuple[Tensor, Memory] | None:
        """See `Policy.attend_quickly`."""
        held = memory["k"].shape[2] + 1
        if held <= self.tokens or type(self) is not TokenSelect:
            return None
        keys, values = append(memory["k"], k), append(memory["v"], v)
        if place.layer == 0:
            self._clear()
        voter, voted = self._vote(q, keys, memory, self._best_quickly)
        out = read_tokens(q, keys, values, self.sinks, voted[0], self.local)
        self._read, self._held = self._read + self.tokens, self._held + held
        return out, {"k": keys, "v": values, "voter": voter, "voted": voted}

    def meters(self) -> dict[str, float]:
        """Of the last call: `read`, the share of the bytes of all keys and values; `reused`, that of votes held."""
        meters = {"read": self._read / self._held} if self._held else {}
        return {**meters, "reused": self._reused / self._steps} if self._steps else meters

    def _vote(
        self, q: Tensor, keys: Tensor, memory: Memory, best_of: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The query that voted last, and what it chose."""
        query, last, held = q.flatten(1), memory["voter"], keys.shape[2]
        stale = torch.ones(len(q), dtype=torch.bool, device=q.device)
        if last.shape[1]:
            stale = functional.cosine_similarity(query, last, dim=1) < self.threshold
        votes = int(stale.sum())
        self._steps, self._reused = self._steps + len(q), self._reused + len(q) - votes
        if not votes:
            return last, memory["voted"]
        self._read += held / 2 * votes / len(q)  # keys without values
        best = best_of(q, keys)
        if votes == len(q):
            return query, best
        return torch.where(stale[:, None], query, last), torch.where(stale[:, None], best, memory["voted"])

    def _best(self, q: Tensor, keys: Tensor) -> Tensor:
        score = self._score(q, keys[:, :, self.sinks : keys.shape[2] - self.local])
        return score.topk(self.tokens - self.sinks - self.local).indices.sort().values + self.sinks

    def _best_quickly(self, q: Tensor, keys: Tensor) -> Tensor:
        return voted_by(q, keys, self.sinks, keys.shape[2] - self.local, self.tokens - self.sinks - self.local)

    def _score(self, q: Tensor, keys: Tensor) -> Tensor:
        """What ranks the tokens."""
        return vote(q, keys)

    def _clear(self) -> None:
        self._read = self._held = 0.0
        self._steps = self._reused = 0

    def _no_vote(self, like: Tensor, batch: int) -> Memory:
        return {"voter": like.new_empty(batch, 0), "voted": like.new_empty(batch, 0, dtype=torch.long)}


def vote(q: Float[Tensor, "b h 1 s"], keys: Float[Tensor, "b g n s"]) -> Float[Tensor, "b n"]:
    """The soft vote of the heads on the tokens."""
    batch, heads, _, width = q.shape
    products = q.reshape(batch, keys.shape[1], heads // keys.shape[1], width) @ keys.transpose(2, 3)
    return products.softmax(-1).sum(dim=(1, 2))


def full_budget(length: int) -> list[Policy]:
    """Settings at which it is full attention over `length` tokens."""
    return [TokenSelect(length, 1, 2)]


def example() -> list[Policy]:
    """Small ones."""
    return [TokenSelect(6, 1, 2), TokenSelect(5, 0, 3, threshold=2.0)]
