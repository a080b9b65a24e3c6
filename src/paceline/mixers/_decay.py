"""Causal linear attention with a fixed decay per head, as chunked matrix products: what lightning and its kin share."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paceline.mixers._contract import MixerState
from paceline.mixers._toeplitz import Dense

CHUNK = 64
SLAB = 32 * CHUNK
"""Tokens that are taken together: their intermediate results are still near when they are read, and positions that are
counted from a slab's start stay small."""

Heads = Float[Tensor, "b heads t s"]
Memory = Float[Tensor, "b heads s e"]


def decayed_attention(
    q: Heads,
    k: Heads,
    v: Float[Tensor, "b heads t e"],
    rate: Float[Tensor, " heads"],
    s: Memory,
) -> tuple[Float[Tensor, "b heads t e"], Memory, Float[Tensor, "b heads last e"]]:
    """o_i = q_i S_i with S_i = exp(-rate) S_(i-1) + k_i v_i^T, in chunks of 64 tokens from the state s.

    No power of the decay is ever divided by: every exponent is an age, so nothing overflows at any length.

    Args:
        q: queries.
        k: keys.
        v: values.
        rate: what each head loses a token, as a natural logarithm.
        s: the state before the first token.

    Returns:
        The outputs, the state after the last token, and what of the last chunk's outputs came through the state.
    """
    length = q.shape[2]
    chunk = min(CHUNK, length)
    last = (length - 1) % chunk + 1  # tokens in the last chunk
    steps, rate = torch.arange(chunk, device=q.device), rate.view(-1, 1, 1)
    ages = steps.unsqueeze(1) - steps
    decay = torch.exp(-rate * ages.clamp(min=0)) * (ages >= 0)  # (heads, c, c)
    leaving = torch.exp(-rate * (chunk - 1 - steps).unsqueeze(1))
    q, k, v = (_fold(z, chunk) for z in (q, k, v))  # (b, heads, chunks, c, .)
    kept = k[:, :, -1, :last] * leaving[:, chunk - last :], v[:, :, -1, :last]
    states = [s]
    if q.shape[2] > 1:
        left = (k[:, :, :-1] * leaving.unsqueeze(1)).transpose(3, 4) @ v[:, :, :-1]
        fading = torch.exp(-rate * chunk)
        for piece in left.unbind(2):  # over chunks, not tokens
            states.append(torch.addcmul(piece, fading, states[-1]))
    inside = (q @ k.transpose(3, 4) * decay.unsqueeze(1)) @ v
    through = torch.exp(-rate * (steps + 1).unsqueeze(1)).unsqueeze(1) * (q @ torch.stack(states, dim=2))
    s = torch.exp(-rate * last) * states[-1] + kept[0].transpose(2, 3) @ kept[1]
    return Dense.apply(inside + through).flatten(2, 3)[:, :, :length], s, through[:, :, -1, :last].detach()


def slab_by_slab(
    extend: Callable[[Tensor, MixerState], tuple[Tensor, MixerState]], x: Float[Tensor, "b t d"], state: MixerState
) -> tuple[Float[Tensor, "b t d"], MixerState]:
    """`extend` over sequences of any length, in turn over slabs."""
    if x.shape[1] <= SLAB:
        return extend(x, state)
    outputs = []
    for slab in x.split(SLAB, dim=1):
        y, state = extend(slab, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _fold(z: Tensor, chunk: int) -> Tensor:
    """(b, heads, t, s) -> (b, heads, chunks, c, s), dense, with zeros after the end."""
    lacking = -z.shape[2] % chunk
    return (functional.pad(z, (0, 0, 0, lacking)) if lacking else z).contiguous().unflatten(2, (-1, chunk))


def decayed_products(batch: int, heads: int, length: int, key_width: int, value_width: int) -> float:
    """Forward operations in the matrix products of `decayed_attention`."""
    chunk = min(CHUNK, length)
    filled = -(-length // chunk) * chunk
    inside = 2.0 * filled * chunk * (key_width + value_width)
    return batch * heads * (inside + 2.0 * (filled + length) * key_width * value_width)
