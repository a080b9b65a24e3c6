"""The tree search of HiP and attention to the blocks of keys that it chooses; the method is in `hip.py`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from paceline.core.errors import PacelineError

CHUNK = 2**22
"""Numbers of gathered keys at a time."""


@dataclass(frozen=True)
class Pruning:
    """How much is attended, and how it is searched for; all in tokens.

    Raises:
        PacelineError: a size is out of range or no multiple of its block.
    """

    keys: int = 512
    """k, how many keys the search chooses."""
    window: int = 256
    """Keys before the block of a query that it always sees."""
    sinks: int = 16
    """First keys of the sequence, always seen."""
    block_q: int = 64
    """Queries that share a choice."""
    block_k: int = 16
    """Keys chosen together."""
    stride_q: int = 2
    """Every which leading query scores."""
    stride_k: int = 4
    """Every which key of a representative is scored."""

    def __post_init__(self) -> None:
        if min(self.keys, self.block_q, self.block_k, self.stride_q, self.stride_k) < 1:
            raise PacelineError(f"hip: {self}: give each but window and sinks at least 1.")
        if min(self.window, self.sinks) < 0:
            raise PacelineError(f"hip: window={self.window} and sinks={self.sinks} cannot be below 0.")
        for name in ("keys", "window", "sinks", "block_q"):
            if getattr(self, name) % self.block_k:
                raise PacelineError(f"hip: {name}={getattr(self, name)} is not a multiple of block_k={self.block_k}.")
        for name, stride in (("block_q", self.stride_q), ("block_k", self.stride_k)):
            if getattr(self, name) % stride:
                raise PacelineError(f"hip: {name}={getattr(self, name)} is not a multiple of its stride {stride}.")

    @property
    def dense(self) -> int:
        """Tokens up to which every key is attended."""
        return ((self.keys + self.window + self.sinks) // self.block_q + 1) * self.block_q

    @property
    def attended(self) -> int:
        """Keys that a block of queries reads."""
        return self.sinks + self.keys + self.window + self.block_q

    def candidates(self, block: int) -> int:
        """Blocks of keys that the block of queries of this number chooses from."""
        return max(0, (block * self.block_q - self.window) // self.block_k - self.sinks // self.block_k)


@dataclass(frozen=True)
class Work:
    """What a call did, for one head of one sequence."""

    scored: int
    """Keys scored in the search, once for each block of queries."""
    attended: int
    """Pairs of query and key under the softmax."""
    causal: int
    """Pairs under that of full attention."""


Select = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""A choice of key blocks, as `tree_search` makes it."""


@torch.no_grad()
def tree_search(
    leads: Float[Tensor, "n c r s"], keys: Float[Tensor, "m p j s"], counts: Int[Tensor, " c"], chosen: int
) -> Int[Tensor, "n c chosen"]:
    """The paper's choice: for c blocks of queries, `chosen` of the first counts[i] of the p blocks of keys.

    Args:
        leads: r leading queries of each block, for n heads.
        keys: the keys to be scored of each block; m divides n where heads share them.
        counts: how many blocks to choose from, more than `chosen`.
        chosen: how many to choose.
    """
    n, c, _, _ = leads.shape
    p = keys.shape[1]
    owner = torch.arange(n, device=leads.device).div(n // len(keys), rounding_mode="floor") * p
    table = keys.flatten(0, 1).flatten(1)  # (n p, j s)
    leads = leads.contiguous()
    edges = counts.unsqueeze(1) * torch.arange(chosen + 1, device=leads.device) // chosen
    start, size = (z.expand(n, c, chosen) for z in (edges[:, :-1], edges.diff(dim=1)))
    for _ in range(levels(int(counts.max()), chosen)):
        half = size // 2
        start, size = torch.cat((start, start + half), dim=-1), torch.cat((half, size - half), dim=-1)
        rows = owner.view(n, 1, 1) + start + size // 2
        seen = table.index_select(0, rows.flatten()).view(n, c, -1, leads.shape[-1])
        scores = (seen @ leads.transpose(2, 3)).view(n, c, 2 * chosen, -1).amax(dim=3)
        best = scores.masked_fill(size == 0, -torch.inf).topk(chosen, dim=-1, sorted=False).indices
        start, size = start.gather(2, best), size.gather(2, best)
    return start


def levels(count: int, chosen: int) -> int:
    """How often runs of `count` blocks, `chosen` of them, are halved until each is one block."""
    return max(0, -(-count // chosen) - 1).bit_length()


def hip_attention(
    q: Float[Tensor, "b h t s"],
    k: Float[Tensor, "b g p s"],
    v: Float[Tensor, "b g p e"],
    sizes: Pruning = Pruning(),
    *,
    before: Float[Tensor, "b h m s"] | None = None,
    scale: float | None = None,
    select: Select = tree_search,
) -> tuple[Float[Tensor, "b h t e"], Work]:
    """Causal attention to chosen keys; the queries are those of the last t of the p keys.

    Args:
        q: queries, unscaled.
        k: keys; g divides h.
        v: values.
        sizes: how much, and in what blocks.
        before: the queries before q, as far as they are known; the last 2 `block_q` - 2 matter. A block that begins
            before the first query that is known is led by that one.
        scale: of the products. Default: s^(-1/2).
        select: how key blocks are chosen.
    """
    length, total = q.shape[2], k.shape[2]
    past = total - length
    split = min(max(sizes.dense - past, 0), length)
    pieces = [] if split == 0 else [_dense(q[:, :, :split], k[:, :, : past + split], v[:, :, : past + split], scale)]
    if split < length:
        known = q if before is None else torch.cat((before, q), dim=2)
        pieces.append(_sparse(q[:, :, split:], k, v, known, sizes, scale, select))
    did = work(length, total, len(q) * q.shape[1], q.shape[3], sizes)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2), did


def _dense(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """Every key up to each query's own."""
    length, past, grouped = q.shape[2], k.shape[2] - q.shape[2], q.shape[1] != k.shape[1]
    if past == 0 or length == 1:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=past == 0, scale=scale, enable_gqa=grouped)
    seen = torch.ones(length, past + length, dtype=torch.bool, device=q.device).tril(past)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=grouped)


def _sparse(
    q: Tensor, k: Tensor, v: Tensor, known: Tensor, sizes: Pruning, scale: float | None, select: Select
) -> Tensor:
    """The queries of blocks that have more keys to choose from than they may."""
    (b, h, length, width), total = q.shape, k.shape[2]
    begin, block = total - length, sizes.block_q
    first, blocks = begin // block, (total - 1) // block - begin // block + 1
    leads = _leads(known, total, first, blocks, sizes)
    tail = -total % sizes.block_k
    keys, values = (functional.pad(z, (0, 0, 0, tail)).unflatten(2, (-1, sizes.block_k)).flatten(0, 1) for z in (k, v))
    middle = sizes.sinks // sizes.block_k
    scored = keys[:, middle:, sizes.stride_k // 2 :: sizes.stride_k]
    rows = slice(0, block)
    if blocks == 1:  # a few queries, such as a step of decoding, are not filled up to a block
        rows = slice(begin - first * block, begin - first * block + length)
        q = q.flatten(0, 1).unsqueeze(1)
    else:
        q = functional.pad(q, (0, 0, begin - first * block, -total % block)).flatten(0, 1).unflatten(1, (-1, block))
    ages = torch.arange(block, device=q.device)[rows].unsqueeze(1) - torch.arange(block, device=q.device)
    mask = functional.pad(torch.where(ages >= 0, 0.0, -torch.inf).to(q.dtype), (sizes.attended - block, 0))
    outputs = []
    for low, high in _chunks(first, blocks, b * h, width, sizes):
        at = torch.arange(low, high, device=q.device)
        counts = (at * block - sizes.window) // sizes.block_k - middle
        chosen = select(leads[:, low - first : high - first], scored, counts, sizes.keys // sizes.block_k) + middle
        outputs.append(_attend(q[:, low - first : high - first], keys, values, at, chosen, mask, sizes, scale))
    out = torch.cat(outputs, dim=1).flatten(1, 2).unflatten(0, (b, h))
    return out if blocks == 1 else out[:, :, begin - first * block :][:, :, :length]


def _attend(
    q: Tensor, keys: Tensor, values: Tensor, at: Tensor, chosen: Tensor, mask: Tensor, sizes: Pruning,
    scale: float | None,
) -> Tensor:  # fmt: skip
    """q (n, c, i, s) on the sinks, the chosen blocks, the window and their own block -> (n, c, i, e)."""
    n, c = q.shape[:2]
    local = (sizes.window + sizes.block_q) // sizes.block_k
    ends = (at + 1).unsqueeze(1) * (sizes.block_q // sizes.block_k)
    near = (ends - local + torch.arange(local, device=q.device)).clamp(max=keys.shape[1] - 1)  # beyond: masked
    sinks = torch.arange(sizes.sinks // sizes.block_k, device=q.device)
    blocks = torch.cat((sinks.expand(n, c, -1), chosen, near.expand(n, -1, -1)), dim=-1)
    rows = (blocks + (torch.arange(n, device=q.device) // (n // len(keys)) * keys.shape[1]).view(n, 1, 1)).flatten()
    k, v = (
        z.flatten(0, 1).flatten(1).index_select(0, rows).view(n * c, 1, sizes.attended, z.shape[-1])
        for z in (keys, values)
    )
    out = functional.scaled_dot_product_attention(q.flatten(0, 1).unsqueeze(1), k, v, attn_mask=mask, scale=scale)
    return out.squeeze(1).unflatten(0, (n, c))


def _leads(known: Tensor, total: int, first: int, blocks: int, sizes: Pruning) -> Float[Tensor, "n c r s"]:
    """The leading queries of each block: its first, and those of the block before it but that one's first."""
    start = (first - 1) * sizes.block_q + 1
    known = known[:, :, max(0, start - (total - known.shape[2])) :]
    missing = total - known.shape[2] - start
    if missing:
        known = torch.cat((known[:, :, :1].expand(-1, -1, missing, -1), known), dim=2)
    leads = known[:, :, : blocks * sizes.block_q].flatten(0, 1).unflatten(1, (blocks, sizes.block_q))
    return leads[:, :, sizes.stride_q - 1 :: sizes.stride_q]


def _chunks(first: int, blocks: int, rows: int, width: int, sizes: Pruning) -> Iterator[tuple[int, int]]:
    """Runs of query blocks that are taken together."""
    together = max(1, CHUNK // (rows * sizes.attended * width))
    for low in range(first, first + blocks, together):
        yield low, min(low + together, first + blocks)


def work(length: int, total: int, rows: int, width: int, sizes: Pruning) -> Work:
    """What `hip_attention` does for the last `length` of `total` tokens, with `rows` heads of `width` in all."""
    past, block = total - length, sizes.block_q
    split = min(max(sizes.dense - past, 0), length)
    pairs = split * past + split * (split + 1) // 2
    scored = 0
    if split < length:
        begin = past + split
        pairs += (total - begin) * (sizes.attended - block) + _own(total, block) - _own(begin, block)
        first, blocks = begin // block, (total - 1) // block - begin // block + 1
        per_level = 2 * sizes.keys // sizes.stride_k
        for low, high in _chunks(first, blocks, rows, width, sizes):
            scored += (high - low) * per_level * levels(sizes.candidates(high - 1), sizes.keys // sizes.block_k)
    return Work(scored, pairs, length * past + length * (length + 1) // 2)


def _own(tokens: int, block: int) -> int:
    """Pairs of the first so many queries with the keys of their own blocks, themselves included."""
    full, rest = divmod(tokens, block)
    return full * block * (block + 1) // 2 + rest * (rest + 1) // 2
