"""8-bit weights, rounded to nearest: w = s_i q_ij with q in -127..127 and one scale s_i = max_j |w_ij| / 127 an output.

Activations stay as they are. A step of decoding reads a quarter of the bytes of float32, through compiled loops where
numba is installed (`_rows.py`); many tokens at once are multiplied with the weights written out again. Embeddings
stay, a tied output matrix is compressed.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.compress._contract import Compression, exchange_linears
from paceline.compress._rows import can, few_rows
from paceline.core.card import Source
from paceline.core.state import LM

PAPERS = (
    Source(
        title="LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale",
        arxiv="2208.07339",
        year=2022,
        says="vector-wise scales; outliers are not kept apart here, as only weights are rounded",
    ),
)
FEW = 8
"""Tokens up to which torch's product with 8-bit weights is faster than writing the weights out."""


class Int8Linear(nn.Module):
    """A linear map whose weights take 8 bits."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        self.register_buffer("packed", (weight / scale.unsqueeze(1)).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    packed: Tensor
    scale: Tensor
    bias: Tensor | None

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """The rounded weights, written out: for code that reads a linear map's own."""
        return self.packed.float() * self.scale.unsqueeze(1)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """As the linear map, with its rounded weights."""
        rows = x.reshape(-1, x.shape[-1])
        if can(rows):
            y = few_rows(rows, self.packed, self.scale)
        elif x.dtype == torch.float32 and len(rows) <= FEW and x.device.type == "cpu":
            y = torch._weight_int8pack_mm(rows.contiguous(), self.packed, self.scale)
        else:
            y = functional.linear(rows, self.packed.to(x.dtype)) * self.scale.to(x.dtype)
        y = y if self.bias is None else y + self.bias.to(x.dtype)
        return y.view(*x.shape[:-1], -1)


class Int8(Compression):
    """Round-to-nearest 8-bit weights."""

    @property
    def bits(self) -> float:
        """8, and a float32 scale for each output."""
        return 8 + 32 / 1024

    def apply(self, lm: LM) -> LM:
        """See `Compression.apply`."""
        return exchange_linears(lm, Int8Linear)


def example() -> list[Compression]:
    """The compression."""
    return [Int8()]
