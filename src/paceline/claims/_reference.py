"""Weights and inputs that anyone's code can repeat without our generator, to compare a layer with its authors'."""

import torch
from torch import Tensor, nn


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
