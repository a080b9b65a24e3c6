"""Causal linear attention with a fixed decay per head, as chunked matrix products: what lightning and its kin share."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 64

Heads = Float[Tensor, "b heads t s"]
Memory = Float[Tensor, "b heads s e"]


def decayed_attention(
    q: Heads,
    k: Heads,
    v: Float[Tensor, "b heads t e"],
    rate: Float[Tensor, " heads"],
    s: Memory,
    moved: Callable[[Tensor, int], Tensor] | None = None,
) -> tuple[Float[Tensor, "b heads t e"], Memory, Float[Tensor, "b heads last e"]]:
    """o_i = q_i S_i with S_i = exp(-rate) S_(i-1) + k_i v_i^T, in chunks of 64 tokens from the state s.

    No power of the decay is ever divided by: every exponent is an age, so nothing overflows at any length.

    Args:
        q: queries.
        k: keys.
        v: values.
        rate: what each head loses a token, as a natural logarithm.
        s: the state before the first token.
        moved: what a chunk of so many tokens does to the state besides its decay, e.g. to positions counted from the
            chunk's start.

    Returns:
        The outputs, the state after the last token, and what of the last chunk's outputs came through the state.
    """
    length = q.shape[2]
    chunk = min(CHUNK, length)
    steps, rate = torch.arange(chunk, device=q.device), rate.view(-1, 1, 1)
    ages = steps.unsqueeze(1) - steps
    decay = torch.exp(-rate * ages.clamp(min=0)) * (ages >= 0)  # (heads, c, c)
    outputs = []
    for start in range(0, length, chunk):  # over chunks, not tokens
        qc, kc, vc = (z[:, :, start : start + chunk] for z in (q, k, v))
        size = qc.shape[2]
        inside = (qc @ kc.transpose(2, 3) * decay[:, :size, :size]) @ vc
        through = torch.exp(-rate * (steps[:size] + 1).unsqueeze(1)) * (qc @ s)
        outputs.append(inside + through)
        leaving = torch.exp(-rate * (size - 1 - steps[:size]).unsqueeze(1))
        s = torch.exp(-rate * size) * s + (kc * leaving).transpose(2, 3) @ vc
        s = s if moved is None else moved(s, size)
    return torch.cat(outputs, dim=2), s, through.detach()


def decayed_products(batch: int, heads: int, length: int, key_width: int, value_width: int) -> float:
    """Forward operations in the matrix products of `decayed_attention`."""
    chunk = min(CHUNK, length)
    whole, rest = divmod(length, chunk)
    inside = 2.0 * (whole * chunk**2 + rest**2) * (key_width + value_width)
    return batch * heads * (inside + 4.0 * length * key_width * value_width)
