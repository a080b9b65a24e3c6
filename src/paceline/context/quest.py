"""Quest: every key is kept in pages, and a step reads the pages that may hold the largest scores for its query.

    low, high = min, max of a page's keys by channel
    bound     = sum over channels of max(q low, q high)       # no key of the page scores higher
    read        the tokens / page - 1 pages of the highest bound, and the last page, for each query head apart

A step of a model with h query heads over g key heads of width s touches the bounds, 2 g s n / page numbers, and 2 h s
tokens of keys and values, of 2 g s n. Where heads share keys, as in models after the paper's, `together` lets those of
a key head choose by the sum of their bounds and read the same pages: 2 g s tokens. The bound is one product: max(q low,
q high) is q high where q > 0 and q low elsewhere. The memory is that of the full cache and 1 / page more. The first
layers read all, as do reads of several tokens at once: prompts. `block` makes reads of up to so many tokens steps as
well, each query with pages of its own, so that checking drafted tokens gives what single steps give.

As in the authors' kernels the last page is always read and counted in the budget; their evaluation script, which
reads three pages at least, does not do so.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.context._contract import Memory, Place, Policy, read
from paceline.context._rows import gather, read_each, whole
from paceline.context._steps import Step, quest_step
from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.growing import append, empty

PAPERS = (
    Paper(
        title="Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference",
        arxiv="2406.10774",
        year=2024,
        says="Reading only the pages of the highest bound for the query answers as well as reading the whole cache.",
    ),
)


class Quest(Policy):
    """Keeps everything, reads pages.

    Args:
        page: tokens a page.
        tokens: how many a query reads at most, in whole pages.
        dense_layers: how many of the first layers read all.
        block: reads of at most so many tokens are steps.
        together: whether the query heads that share keys read the same pages. Departs from the paper.

    Raises:
        PacelineError: the budget is not two pages.
    """

    pieces = "several"

    def __init__(
        self, page: int = 16, tokens: int = 256, dense_layers: int = 2, block: int = 1, together: bool = False
    ) -> None:
        whole("Quest", 1, page=page, tokens=tokens, block=block)
        whole("Quest", 0, dense_layers=dense_layers)
        if tokens < 2 * page:
            raise PacelineError(f"Quest: {tokens} tokens are not two pages of {page}: give more tokens.")
        self.page, self.tokens, self.dense_layers, self.block = page, tokens, dense_layers, block
        self.together = together
        self._read = self._held = 0

    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        """See `Policy.empty`. `bounds` has low and high of each page that is full, side by side."""
        nothing = empty(batch, heads, width, like)
        return {"k": nothing, "v": nothing.clone(), "bounds": empty(batch, heads, 2 * width, like)}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory, place: Place) -> tuple[Tensor, Memory]:
        """See `Policy.attend`."""
        self.refuse_mask(place)
        after = self._after(k, v, memory, place)
        keys, values, bounds = after["k"], after["v"], after["bounds"]
        length, held, count = q.shape[2], keys.shape[2], self.tokens // self.page
        if self._reads_all(place, length, held):
            self._count(keys.shape[1] * held, keys.shape[1] * held)
            return read(q, keys, values), after
        at = torch.arange(held - length, held, device=q.device)  # where the queries stand
        last = at // self.page
        pages = torch.arange(bounds.shape[2], device=q.device)
        score = self._score(q, bounds)
        if self.together:
            score = score.unflatten(1, (keys.shape[1], -1)).sum(2)
        score = score.masked_fill(pages >= last[:, None], -torch.inf)
        top = score.topk(count - 1).indices  # (b, c, t, count - 1) for c heads that choose
        chosen = torch.cat((top, last[:, None].expand(*top.shape[:3], 1)), dim=3)
        real = chosen <= last[:, None]
        real[..., :-1] &= top < last[:, None]  # where there were fewer pages than could be chosen
        first = (chosen * self.page).clamp_max(held - self.page)  # the last page is read with some tokens before it
        tokens = first.unsqueeze(-1) + torch.arange(self.page, device=q.device)
        allowed = real.unsqueeze(-1) & (tokens >= (chosen * self.page).unsqueeze(-1)) & (tokens <= at[:, None, None])
        shape = (*top.shape[:3], count * self.page, q.shape[3])
        picked_k, picked_v = (gather(x, first, self.page).reshape(shape) for x in (keys, values))
        out = read_each(q, picked_k, picked_v, allowed.flatten(3))
        self._count_chosen(q.shape[1], length, keys, bounds)
        return out, after

    def step_quickly(self, step: Step, past: Sequence[Memory]) -> Sequence[Memory] | None:
        """See `Policy.step_quickly`."""
        held, count = past[0]["k"].shape[2] + 1, self.tokens // self.page
        sparse = past[self.dense_layers :]
        known = all(memory["bounds"].shape[2] == (held - 1) // self.page for memory in sparse)
        if type(self) is not Quest or step.tokens > 1 or held <= count * self.page or not sparse or not known:
            return None
        after = quest_step(step, past, self.dense_layers, self.page, count, self.together)
        self._read = self._held = 0
        self._count(self.dense_layers * step.groups * held, self.dense_layers * step.groups * held)
        for memory in after[self.dense_layers :]:
            self._count_chosen(step.heads, 1, memory["k"], memory["bounds"])
        return after

    def _after(self, k: Tensor, v: Tensor, memory: Memory, place: Place) -> Memory:
        """What is remembered then."""
        keys, values, bounds = append(memory["k"], k), append(memory["v"], v), memory["bounds"]
        if place.layer == 0:
            self._read = self._held = 0
        if place.layer >= self.dense_layers:
            bounds = self._grown(bounds, keys)
        return {"k": keys, "v": values, "bounds": bounds}

    def _reads_all(self, place: Place, length: int, held: int) -> bool:
        return place.layer < self.dense_layers or length > self.block or held <= self.tokens // self.page * self.page

    def meters(self) -> dict[str, float]:
        """`read`: of the bytes of all keys and values, the share that was read in the last call, bounds included."""
        return {"read": self._read / self._held} if self._held else {}

    def _score(self, q: Tensor, bounds: Tensor) -> Tensor:
        """What ranks the pages."""
        return bound(q, bounds)

    def _grown(self, bounds: Tensor, keys: Tensor) -> Tensor:
        """With the pages that became full."""
        known, full = bounds.shape[2], keys.shape[2] // self.page
        if full == known:
            return bounds
        new = keys[:, :, known * self.page : full * self.page].unflatten(2, (-1, self.page))
        return append(bounds, torch.cat(torch.aminmax(new, dim=3), dim=-1))

    def _count_chosen(self, heads: int, length: int, keys: Tensor, bounds: Tensor) -> None:
        held, groups = keys.shape[2], keys.shape[1]
        vectors = (groups if self.together else heads) * length * (self.tokens // self.page) * self.page
        self._count(vectors + groups * bounds.shape[2], groups * held * length)

    def _count(self, read: int, held: int) -> None:
        self._read += read
        self._held += held


def bound(q: Float[Tensor, "b h t s"], bounds: Float[Tensor, "b g p 2*s"]) -> Float[Tensor, "b h t p"]:
    """What no key of a page can exceed as a product with the query."""
    batch, heads, length, _ = q.shape
    signed = torch.cat((q.clamp_max(0), q.clamp_min(0)), dim=-1)
    grouped = signed.reshape(batch, bounds.shape[1], heads // bounds.shape[1] * length, bounds.shape[3])
    return (grouped @ bounds.transpose(2, 3)).reshape(batch, heads, length, bounds.shape[2])


def full_budget(length: int) -> list[Policy]:
    """Settings at which it is full attention over `length` tokens."""
    wide = Quest(4, length + 3, 0, together=True)
    return [Quest(4, length + 3, 0), Quest(3, length + 2, 1, block=4), Quest(2, 4, 10**6), wide]


def example() -> list[Policy]:
    """Small ones."""
    return [Quest(2, 6, 1), Quest(3, 6, 0, block=3), Quest(2, 6, 0, block=3, together=True)]
