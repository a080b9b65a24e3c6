"""The same model with its linear maps compiled for few rows: what single-token steps on a processor wait for."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.compress._contract import exchange_linears
from paceline.compress._rows import can, few_rows, kernels
from paceline.core.state import LM
from paceline.lm.decoder import Decoder
from paceline.lm.huggingface.llama import Llama
from paceline.lm.layers import LayeredDecoder

LEAST = 2**16
"""Weights of a map below which calling a loop costs more than it saves."""


class QuickLinear(nn.Linear):
    """A linear map that shares its weights with another one; few rows go through compiled loops."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight
        self._ready = weight.dtype == torch.float32 and weight.is_contiguous() and weight.numel() >= LEAST
        self._scales = torch.ones(linear.out_features)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """As the linear map."""
        rows = x.reshape(-1, x.shape[-1])
        if not self._ready or not can(rows):
            return functional.linear(x, self.weight, self.bias)
        y = few_rows(rows, self.weight.detach(), self._scales)
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1)


def quicken(lm: LM) -> LM:
    """The model for decoding on this processor: the same weights and states, other loops; itself where none help.

    Models of Llama's kind and Paceline's own; logits agree with theirs up to the rounding of sums in another order.
    """
    if kernels() is None:
        return lm
    if isinstance(lm, LayeredDecoder):
        decoder = exchange_linears(lm.decoder, QuickLinear)
        assert isinstance(decoder, Decoder)
        return LayeredDecoder(decoder)
    return exchange_linears(lm, QuickLinear) if isinstance(lm, Llama) else lm
