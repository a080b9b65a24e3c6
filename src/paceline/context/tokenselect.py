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
A read of several tokens at once forgets the vote. With `four_bits` votes look at a copy of the keys in 4 bits, an
eighth of the keys' bytes in float32, whose range by channel is taken anew whenever the cache has doubled; what is read
after the vote is exact as before.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paceline.context._contract import Memory, Place, Policy, read
from paceline.context._rows import gather, whole
from paceline.context._steps import Step, tokenselect_step
from paceline.context.quantised import encode, pack, unpack
from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.growing import append, empty, room

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
        four_bits: whether votes look at a copy of the keys in 4 bits. Departs from the paper.

    Raises:
        PacelineError: sinks and window leave nothing to vote for; or, when it is used, 4 bits of heads of an odd width.
    """

    pieces = "several"

    def __init__(
        self, tokens: int = 256, sinks: int = 16, local: int = 64, threshold: float = 0.9, four_bits: bool = False
    ) -> None:
        whole("TokenSelect", 1, tokens=tokens, local=local)
        whole("TokenSelect", 0, sinks=sinks)
        if sinks + local >= tokens:
            raise PacelineError(
                f"TokenSelect: {sinks} sinks and {local} last tokens leave nothing to choose of {tokens}: give more."
            )
        self.tokens, self.sinks, self.local, self.threshold = tokens, sinks, local, threshold
        self.four_bits = four_bits
        self._read = self._held = 0.0
        self._steps = self._reused = 0

    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        """See `Policy.empty`. `voter` (b, h s) is the query that voted, `voted` (b, m) the tokens, in order; `codes`
        (b, g, n, s / 2) is what votes read instead of keys, with a `low` and a `step` for each channel."""
        nothing = empty(batch, heads, width, like)
        memory = {"k": nothing, "v": nothing.clone(), **self._no_vote(like, batch)}
        if not self.four_bits:
            return memory
        if width % 2:
            raise PacelineError(f"TokenSelect: heads of width {width} do not fill bytes with 4 bits: leave them out.")
        codes = empty(batch, heads, width // 2, like).to(torch.uint8)
        return {**memory, "codes": codes, "low": nothing.clone(), "step": nothing.clone()}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory, place: Place) -> tuple[Tensor, Memory]:
        """See `Policy.attend`."""
        self.refuse_mask(place)
        keys, values = append(memory["k"], k), append(memory["v"], v)
        if place.layer == 0:
            self._clear()
        batch, groups, held, _ = keys.shape
        if q.shape[2] > 1 or held <= self.tokens:
            self._read, self._held = self._read + held, self._held + held
            return read(q, keys, values), {**memory, "k": keys, "v": values, **self._no_vote(q, batch)}
        codes = self._codes(memory)
        if codes:
            codes = {**codes, "codes": append(codes["codes"], encode(k, codes["low"], codes["step"], 4))}
        voter, voted = self._vote(q, keys, codes, memory)
        at = torch.arange(held, device=q.device).expand(batch, -1)
        tokens = torch.cat((at[:, : self.sinks], voted, at[:, held - self.local :]), dim=1)
        index = tokens.unsqueeze(1).expand(-1, groups, -1)
        out = read(q, gather(keys, index), gather(values, index))
        return out, {"k": keys, "v": values, "voter": voter, "voted": voted, **codes}

    def step_quickly(self, step: Step, past: Sequence[Memory]) -> Sequence[Memory] | None:
        """See `Policy.step_quickly`."""
        held = past[0]["k"].shape[2] + 1
        alike = len({memory["voter"].shape[1] for memory in past}) == 1
        if type(self) is not TokenSelect or step.tokens > 1 or held <= self.tokens or not alike:
            return None
        self._clear()
        codes = [self._codes(memory) for memory in past]
        codes = [{**layer, "codes": room(layer["codes"], 1)} if layer else layer for layer in codes]
        count = self.tokens - self.sinks - self.local
        after, votes = tokenselect_step(step, past, codes, self.sinks, self.local, count, self.threshold)
        for memory, voted in zip(after, votes, strict=True):
            self._count(1, memory["k"], int(voted))
        return after

    def meters(self) -> dict[str, float]:
        """Of the last call: `read`, the share of the bytes of all keys and values; `reused`, that of votes held."""
        meters = {"read": self._read / self._held} if self._held else {}
        return {**meters, "reused": self._reused / self._steps} if self._steps else meters

    def _vote(self, q: Tensor, keys: Tensor, codes: Memory, memory: Memory) -> tuple[Tensor, Tensor]:
        """The query that voted last, and what it chose."""
        query, last = q.flatten(1), memory["voter"]
        stale = torch.ones(len(q), dtype=torch.bool, device=q.device)
        if last.shape[1]:
            stale = functional.cosine_similarity(query, last, dim=1) < self.threshold
        votes = int(stale.sum())
        self._count(len(q), keys, votes)
        if not votes:
            return last, memory["voted"]
        best = self._best(q, unpack(codes["codes"], codes["low"], codes["step"], 4) if codes else keys)
        if votes == len(q):
            return query, best
        return torch.where(stale[:, None], query, last), torch.where(stale[:, None], best, memory["voted"])

    def _best(self, q: Tensor, keys: Tensor) -> Tensor:
        score = self._score(q, keys[:, :, self.sinks : keys.shape[2] - self.local])
        return score.topk(self.tokens - self.sinks - self.local).indices.sort().values + self.sinks

    def _codes(self, memory: Memory) -> Memory:
        """The keys in 4 bits, where votes read these; the range of all is taken anew once the cache has doubled."""
        if not self.four_bits:
            return {}
        keys, codes, known = memory["k"], memory["codes"], memory["codes"].shape[2]
        if 2 * known < keys.shape[2]:
            return dict(zip(("codes", "low", "step"), pack(keys, keys.shape[2], 4), strict=True))
        low, step = memory["low"], memory["step"]
        more = keys[:, :, known:]
        return {"codes": append(codes, encode(more, low, step, 4)) if more.numel() else codes, "low": low, "step": step}

    def _score(self, q: Tensor, keys: Tensor) -> Tensor:
        """What ranks the tokens."""
        return vote(q, keys)

    def _count(self, rows: int, keys: Tensor, votes: int) -> None:
        """A step of so many rows, of which some voted: keys without values, and what was read of both."""
        held = keys.shape[2]
        share = 4 / (8 * keys.element_size()) if self.four_bits else 1.0
        self._read, self._held = self._read + held / 2 * share * votes / rows + self.tokens, self._held + held
        self._steps, self._reused = self._steps + rows, self._reused + rows - votes

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
    return [TokenSelect(length, 1, 2), TokenSelect(length, 1, 2, four_bits=True)]


def example() -> list[Policy]:
    """Small ones."""
    return [TokenSelect(6, 1, 2), TokenSelect(5, 0, 3, threshold=2.0), TokenSelect(7, 1, 2, four_bits=True)]
