"""A linear map whose weights take 4 or 8 bits and whose inputs may be put on a grid: y = W' q(x) + b.

Products are taken in floating point: activations are numbers of the grid, not codes, for no library here multiplies 4
bits by 4 on a processor. Few tokens at a time are multiplied with the codes themselves where numba is installed
(`_nibbles.py`), so that a step reads an eighth of the bytes of float32; many with the weights written out again.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional

from paceline.compress._grid import on_grid, pack, unpack
from paceline.compress._hadamard import turn
from paceline.compress._nibbles import few_rows_of_nibbles
from paceline.compress._rows import can, few_rows


@dataclass(frozen=True)
class Inputs:
    """What happens to the inputs of a map."""

    bits: int = 16
    """4 or 8, asymmetric; 16: nothing."""
    group: int = 0
    """Numbers of a token that share a grid; 0: all."""
    turned: bool = False
    """Whether they are multiplied by a Hadamard matrix first; so are the weights."""

    def of(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b i"]:
        """What the map then reads."""
        return on_grid(turn(x) if self.turned else x, self.bits, self.group)


def settings(width: int, bits: int, inputs: Inputs) -> dict[str, int | bool]:
    """What is to be known of a map besides its tensors: inputs, bits of a weight, and what happens to the inputs."""
    return {"width": width, "bits": bits, "activations": inputs.bits, "group": inputs.group, "turned": inputs.turned}


class PackedLinear(nn.Module):
    """A linear map in few bits.

    Args:
        codes: of the weights.
        scale: of each output, or of each group of inputs of it.
        bias: added to the outputs.
        bits: 4 or 8.
        inputs: what happens to its inputs.
    """

    def __init__(
        self, codes: Int8[Tensor, "o i"], scale: Float[Tensor, "o g"], bias: Tensor | None, bits: int, inputs: Inputs
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = codes.shape
        self.bits, self.inputs = bits, inputs
        self.register_buffer("packed", pack((codes + 8).to(torch.uint8)) if bits == 4 else codes)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach())

    packed: Tensor
    scale: Tensor
    bias: Tensor | None

    @property
    def codes(self) -> Int8[Tensor, "o i"]:
        """Whole numbers, of which `scale` makes weights."""
        return self.packed if self.bits == 8 else unpack(self.packed, self.in_features).to(torch.int8) - 8

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """The rounded weights, written out: for code that reads a linear map's own."""
        parts = self.codes.to(self.scale.dtype).unflatten(1, (self.scale.shape[1], -1))
        return (parts * self.scale.unsqueeze(2)).flatten(1)

    @property
    def settings(self) -> dict[str, int | bool]:
        """What a saved map must say besides its tensors."""
        return settings(self.in_features, self.bits, self.inputs)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """As the linear map, with its rounded weights."""
        rows = self.inputs.of(x.reshape(-1, x.shape[-1]))
        if can(rows) and self.scale.shape[1] == 1 and self.scale.dtype == torch.float32:
            if self.bits == 4 and self.in_features % 2 == 0:
                y = few_rows_of_nibbles(rows, self.packed, self.scale[:, 0])
            else:
                y = few_rows(rows, self.codes, self.scale[:, 0])
        else:
            y = functional.linear(rows, self.weight.to(x.dtype))
        y = y if self.bias is None else y + self.bias.to(x.dtype)
        return y.view(*x.shape[:-1], -1)
