"""Causal attention over a sliding window, as blocked matrix products."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def windowed_attention(
    q: Float[Tensor, "n t s"],
    k: Float[Tensor, "n p s"],
    v: Float[Tensor, "n p e"],
    lookback: int,
    *,
    valid: Bool[Tensor, "n p"] | None = None,
    squared_relu: bool = False,
) -> Float[Tensor, "n t e"]:
    """Each query sees its own key and the `lookback` keys before it.

    Keys may begin before the queries: the last t of the p keys stand beside the t queries, the p - t <= lookback
    before them are the past. Time O(n t (lookback + block) s), memory O(n t (lookback + block)).

    Args:
        q: queries, unscaled.
        k: keys.
        v: values.
        lookback: how many earlier keys a query sees.
        valid: keys that exist; the others get no weight. A query without any valid key returns zeros or a mean of
            padding, and must be masked by the caller.
        squared_relu: relu(q k / (lookback or 1))^2 in place of softmax(q k / sqrt(s)).
    """
    _, length, width = q.shape
    past = k.shape[1] - length
    block, before = _blocks(length, past, lookback)
    blocks = -(-length // block)
    tail = blocks * block - length
    lead = before * block - past if blocks > 1 else 0  # so that queries stand beside their keys, block by block
    if valid is None:
        valid = torch.ones(1, past + length, dtype=torch.bool, device=q.device)
    q = functional.pad(q, (0, 0, 0, tail)).unflatten(1, (blocks, block))
    k, v = (_spans(functional.pad(x, (0, 0, lead, tail)), blocks, block) for x in (k, v))  # (n, blocks, span, .)
    exists = _spans(functional.pad(valid, (lead, tail)).unsqueeze(-1), blocks, block).transpose(2, 3)
    ages = torch.arange(block, device=q.device).unsqueeze(1) + (lead + past) - torch.arange(k.shape[2], device=q.device)
    seen = (ages >= 0) & (ages <= lookback) & exists  # (n or 1, blocks, block, span)
    if squared_relu:
        weights = (functional.relu(q @ k.transpose(2, 3) / max(lookback, 1)).square() * seen).type_as(v)
    else:
        scores = q * width**-0.5 @ k.transpose(2, 3)
        weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return (weights @ v).flatten(1, 2)[:, :length]


def _blocks(length: int, past: int, lookback: int) -> tuple[int, int]:
    """Queries to a block, and how many blocks before its own a block must look at."""
    block = min(max(lookback, 16), 128)
    if past + length <= lookback + block:  # one block sees everything
        return length, 0
    return block, -(-lookback // block)


def _spans(x: Tensor, blocks: int, block: int) -> Tensor:
    """(n, (before + blocks) block, s) -> (n, blocks, (before + 1) block, s): each block after those before it.

    Slices rather than `unfold`, whose backward pass is slow on a CPU.
    """
    if blocks == 1:
        return x.unsqueeze(1)
    pieces = x.unflatten(1, (-1, block))
    return torch.cat([pieces[:, i : i + blocks] for i in range(pieces.shape[1] - blocks + 1)], dim=2)


def naive_windowed_attention(q: Tensor, k: Tensor, v: Tensor, lookback: int) -> Tensor:
    """The same with the whole (t, t) matrix, for equal numbers of queries and keys (n, t, s)."""
    length = q.shape[1]
    i, j = torch.arange(length).unsqueeze(1), torch.arange(length)
    scores = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).masked_fill((j > i) | (j < i - lookback), -torch.inf)
    return scores.softmax(dim=-1) @ v


def window_products(count: int, length: int, lookback: int, width: int, value_width: int) -> float:
    """Forward operations of `windowed_attention` on a fresh sequence, as they are really executed."""
    if length == 0:
        return 0.0
    block, before = _blocks(length, 0, lookback)
    return 2.0 * count * -(-length // block) * block * (before + 1) * block * (width + value_width)
