"""Causal attention over a sliding window, as blocked matrix products whose scores never leave the cache.

The backward pass computes the scores again, slab by slab (`_slabs`), so memory is that of q, k, v and their gradients.
"""

from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from paceline.mixers._slabs import Room, Slab, pieces, slabs


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
    before them are the past. Time O(n t (lookback + 64) s), memory O(n t (s + e)). Differentiable once.

    Args:
        q: queries, unscaled.
        k: keys.
        v: values.
        lookback: how many earlier keys a query sees.
        valid: keys that exist; the others get no weight. A query without any valid key returns zeros or a mean of
            padding, and must be masked by the caller.
        squared_relu: relu(q k / (lookback or 1))^2 in place of softmax(q k / sqrt(s)).
    """
    dtype = reduce(torch.promote_types, (k.dtype, v.dtype), q.dtype)  # autocast may have left them unlike
    mixed = _Windowed.apply(q.to(dtype), k.to(dtype), v.to(dtype), valid, lookback, squared_relu)
    return mixed.to(v.dtype)  # type: ignore[no-any-return]


class _Windowed(torch.autograd.Function):
    """See `windowed_attention`. Names beginning with d are gradients."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None, lookback: int, squared_relu: bool
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, valid)
        ctx.options = lookback, squared_relu
        mixed, room = v.new_empty(*q.shape[:2], v.shape[2]), Room(q)
        with torch.autocast(q.device.type, enabled=False):
            for slab in slabs(q, k, v, lookback):
                weights = _scores(slab, q, k, valid, lookback, squared_relu, room)
                weights = weights.relu_().square_() if squared_relu else torch.softmax(weights, -1, out=weights)
                slab.put(mixed, room.product("mixed", weights, slab.spans(v)))
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dmixed: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, valid = ctx.saved_tensors
        lookback, squared_relu = ctx.options
        dq, dk, dv, room = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), Room(q)
        with torch.autocast(q.device.type, enabled=False):
            for slab in slabs(q, k, v, lookback):
                weights = _scores(slab, q, k, valid, lookback, squared_relu, room)
                given = slab.blocks(dmixed)
                dscores = room.product("dscores", given, slab.spans(v).transpose(1, 2))
                if squared_relu:
                    dscores.mul_(weights.relu_()).mul_(2)
                    weights.square_()
                else:
                    torch.softmax(weights, -1, out=weights)
                    torch._softmax_backward_data(dscores, weights, -1, weights.dtype, grad_input=dscores)
                dscores.mul_(_scale(q, lookback, squared_relu))
                slab.add(dv, room.product("dspans", weights.transpose(1, 2), given))
                slab.add(dk, room.product("dspans", dscores.transpose(1, 2), slab.blocks(q)))
                slab.put(dq, room.product("mixed", dscores, slab.spans(k)))
        return dq, dk, dv, None, None, None


def _scores(
    slab: Slab, q: Tensor, k: Tensor, valid: Tensor | None, lookback: int, squared_relu: bool, room: Room
) -> Float[Tensor, "blocks block span"]:
    """Scaled products, hopelessly low where a query must not look."""
    ages, never = slab.ages(q, k), torch.finfo(q.dtype).min / 4
    bias = torch.zeros_like(ages, dtype=q.dtype).masked_fill_((ages < 0) | (ages > lookback), never)
    queries, keys = slab.blocks(q), slab.spans(k).transpose(1, 2)
    scores = room("scores", *queries.shape[:2], keys.shape[2])
    if valid is None:
        scores.copy_(bias)
    else:
        lacking = slab.spans(valid.unsqueeze(2)).transpose(1, 2).logical_not()
        torch.add(bias, lacking, alpha=never, out=scores)
    return torch.baddbmm(scores, queries, keys, alpha=_scale(q, lookback, squared_relu), out=scores)


def _scale(q: Tensor, lookback: int, squared_relu: bool) -> float:
    return 1 / max(lookback, 1) if squared_relu else q.shape[2] ** -0.5


def naive_windowed_attention(q: Tensor, k: Tensor, v: Tensor, lookback: int) -> Tensor:
    """The same with the whole (t, t) matrix, for equal numbers of queries and keys (n, t, s)."""
    length = q.shape[1]
    i, j = torch.arange(length).unsqueeze(1), torch.arange(length)
    scores = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).masked_fill((j > i) | (j < i - lookback), -torch.inf)
    return scores.softmax(dim=-1) @ v


def window_products(count: int, length: int, lookback: int, width: int, value_width: int) -> float:
    """Forward operations of `windowed_attention` on a fresh sequence, as they are really executed."""
    scores = sum(blocks * block * (before + block) for _, blocks, block, before in pieces(length, 0, lookback))
    return 2.0 * count * scores * (width + value_width)
