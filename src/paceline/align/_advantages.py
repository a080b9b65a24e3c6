"""How much better each token turned out than was expected: generalised advantage estimation."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paceline.align._contract import mean


def advantages(
    rewards: Float[Tensor, "b t"], values: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"], decay: float = 0.95
) -> Float[Tensor, "b t"]:
    """sum over later tokens of decay^k delta,  delta = reward + next value - value; nothing is discounted besides.

    Args:
        rewards: that each token brought.
        values: expected from before each token on; after the last one nothing is.
        mask: where tokens were written, one stretch a text.
        decay: lambda; 1 takes what came, 0 the value's own word for it.
    """
    held = values * mask
    delta = (rewards + torch.nn.functional.pad(held[:, 1:], (0, 1)) - values) * mask
    steps = torch.arange(mask.shape[1], device=mask.device)
    ahead = (steps[:, None] - steps).clamp_min(0)  # of s before t, as a power; a product is faster than a loop
    powers = torch.where(steps[:, None] >= steps, decay ** ahead.to(delta.dtype), 0.0)
    return (delta @ powers) * mask


def whitened(x: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """Of mean 0 and standard deviation 1 over the tokens where the mask holds."""
    centred = x - mean(x, mask)
    return centred * (mean(centred.square(), mask) + 1e-8).rsqrt() * mask
