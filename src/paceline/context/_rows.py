"""Reading some of what a cache holds, and dropping the rest of it for good."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from paceline.core.errors import PacelineError


def gather(x: Float[Tensor, "b g n s"], tokens: Int[Tensor, "b h ..."], span: int = 1) -> Float[Tensor, "b h ... w"]:
    """The vectors of these tokens, each with the `span` - 1 after it, side by side (w = span s).

    Nothing else of `x` is touched. h / g heads choose apart from each key head. `x` may be the front of a larger buffer
    (`core/growing.py`): it is read as rows in place, not made contiguous.
    """
    batch, groups, length, width = x.shape
    heads = tokens.shape[1]
    if x.stride(3) != 1 or x.stride(2) != width or x.stride(0) % width or x.stride(1) % width:
        x = x.contiguous()
    per_row, per_head = x.stride(0) // width, x.stride(1) // width
    count = (batch - 1) * per_row + (groups - 1) * per_head + length - span + 1
    rows = torch.as_strided(x, (count, span * width), (width, 1))  # overlapping: one starts at every token
    head = torch.arange(heads, device=x.device) // (heads // groups)
    first = torch.arange(batch, device=x.device)[:, None] * per_row + head * per_head  # (b, h)
    index = tokens + first.reshape(batch, heads, *(1,) * (tokens.ndim - 2))
    return rows.index_select(0, index.flatten()).reshape(*tokens.shape, span * width)


def read_each(
    q: Float[Tensor, "b h t s"],
    k: Float[Tensor, "b g t m s"],
    v: Float[Tensor, "b g t m s"],
    allowed: Bool[Tensor, "b g t m"] | None = None,
) -> Float[Tensor, "b h t s"]:
    """Softmax attention of each query to m keys of its own; h / g query heads share theirs."""
    batch, heads, length, width = q.shape
    groups = k.shape[1]
    q = q.reshape(batch, groups, heads // groups, length, width).transpose(2, 3).flatten(1, 2)  # (b, g t, h / g, s)
    mask = None if allowed is None else allowed.flatten(1, 2).unsqueeze(2)
    out = functional.scaled_dot_product_attention(q, k.flatten(1, 2), v.flatten(1, 2), mask)
    return out.unflatten(1, (groups, length)).transpose(2, 3).reshape(batch, heads, length, width)


def keep(x: Tensor, tokens: Int[Tensor, "b g m"]) -> Tensor:
    """A copy of these tokens of x (b, g, n, s) or (b, g, n), so that the rest goes."""
    if x.ndim == 3:
        return x.gather(2, tokens)
    return x.gather(2, tokens.unsqueeze(-1).expand(-1, -1, -1, x.shape[3]))


def weights(q: Float[Tensor, "b h t s"], k: Float[Tensor, "b g n s"], behind: int = 0) -> Float[Tensor, "b g r t n"]:
    """Causal attention weights of t queries, r a key head, the last of which stands `behind` keys before the last."""
    batch, heads, length, width = q.shape
    groups, keys = k.shape[1], k.shape[2]
    scores = q.reshape(batch, groups, heads // groups * length, width) @ k.transpose(2, 3) * width**-0.5
    scores = scores.unflatten(2, (heads // groups, length))
    sees = torch.ones(length, keys, dtype=torch.bool, device=q.device).tril(keys - length - behind)
    return scores.masked_fill(~sees, -torch.inf).softmax(-1)


def whole(name: str, least: int, **numbers: int) -> None:
    """Refuse numbers that are not whole or below `least`.

    Raises:
        PacelineError: naming the method and the number.
    """
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise PacelineError(f"{name}: {key} must be a whole number of at least {least}, not {value!r}.")
