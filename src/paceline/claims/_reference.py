"""What a claim's mark `faithful` compares a layer with.

Weights and inputs that anyone's code can repeat without our generator, for the authors' outputs; and the naive twins.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from paceline.core.tolerances import close
from paceline.mixers._contract import Mixer


@torch.no_grad()
def sine_waves(layer: nn.Module) -> None:
    """Make every parameter, in the order of their names, a sine wave of its own between -1/2 and 1/2."""
    for index, (_, parameter) in enumerate(sorted(layer.named_parameters())):
        waves = torch.sin(torch.arange(1, parameter.numel() + 1, dtype=torch.float64) * (index + 2)) / 2
        parameter.copy_(waves.view_as(parameter))


@torch.no_grad()
def outputs(layer: nn.Module, tokens: int, width: int = 8) -> Tensor:
    """The layer's outputs (tokens,) in float64 on a sine wave with rising pitch, a weighted sum for each token."""
    x = torch.sin(torch.arange(tokens * width, dtype=torch.float64).square()).view(1, tokens, width)
    return layer(x)[0] @ torch.cos(torch.arange(width, dtype=torch.float64))


def equals_naive(examples: Sequence[tuple[Mixer, object]], tokens: int) -> bool:
    """Whether each part gives in float64 what the paper stated plainly gives.

    Args:
        examples: as a mixer's `example()`: parts, each with its naive twin.
        tokens: length of the sequences, two of noise for each part.
    """
    torch.manual_seed(0)
    same = []
    for part, naive in examples:
        part, plain = part.double(), cast(Callable[[Mixer, Tensor], Tensor], naive)
        x = torch.randn(2, tokens, part.d_model, dtype=torch.float64)
        same.append(close(part(x), plain(part, x), x.dtype))
    return all(same)
