"""The same model with its linear maps compiled for few rows: what single-token steps on a processor wait for."""

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.compress._contract import exchange_linears
from paceline.compress._rows import can, few_rows, kernels
from paceline.context._contract import Place
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
        self.scale = torch.ones(linear.out_features)

    @property
    def packed(self) -> Tensor:
        """The weights as the loops read them."""
        return self.weight.detach()

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """As the linear map."""
        rows = x.reshape(-1, x.shape[-1])
        if not self._ready or not can(rows):
            return functional.linear(x, self.weight, self.bias)
        y = few_rows(rows, self.packed, self.scale)
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1)


class QuickLlama(Llama):
    """A model of Llama's kind whose layers take few tokens in two compiled loops, before attention and after it."""

    def _layer(
        self, layer: Any, x: Tensor, memory: Mapping[str, Tensor], turn: tuple[Tensor, Tensor], place: Place
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        maps = (layer.qkv, layer.o, layer.gate_up, layer.down)
        plain = layer.norm_q is None and all(m.bias is None and hasattr(m, "packed") for m in maps)
        if len(x) > 1 or not plain or not can(x[0]) or (steps := _steps()) is None:
            return super()._layer(layer, x, memory, turn, place)
        steps.use_threads(torch.get_num_threads())
        tokens, alone = x.shape[1], x.shape[1] == 1
        rows = x[0] if alone else functional.pad(x[0], (0, 0, 0, -tokens % 4))
        before, after = (steps.before, steps.after) if alone else (steps.before_rows, steps.after_rows)

        def array(t: Tensor) -> Any:
            return t.view(-1).numpy() if alone else t.numpy()

        normed, qkv = torch.empty_like(rows), rows.new_empty(len(rows), len(layer.qkv.packed))
        cos, sin = (array(t.reshape(tokens, -1)) for t in turn)
        turned = self.heads + self.groups
        before(
            array(rows), layer.norm_in.numpy(), self.eps, *_arrays(layer.qkv), cos, sin, turned, array(normed),
            array(qkv),
        )  # fmt: skip
        split = qkv[:tokens].view(1, tokens, -1, self.width).transpose(1, 2)
        q, k, v = split.split((self.heads, self.groups, self.groups), dim=1)
        heads, memory = self.policy.attend(q, k, v, memory, place)
        heads = heads.transpose(1, 2).reshape(tokens, -1)
        heads = heads if alone else functional.pad(heads, (0, 0, 0, -tokens % 4))
        out, middle = torch.empty_like(rows), rows.new_empty(len(rows), len(layer.gate_up.packed) // 2)
        after(
            array(rows), array(heads), *_arrays(layer.o), layer.norm_mid.numpy(), self.eps, *_arrays(layer.gate_up),
            *_arrays(layer.down), array(normed), array(middle), array(out),
        )  # fmt: skip
        return out[None, :tokens], memory


def _arrays(linear: Any) -> tuple[Any, Any]:
    return linear.packed.numpy(), linear.scale.numpy()


@cache
def _steps() -> Any:
    return None if kernels() is None else importlib.import_module("paceline.lm._step_numba")


def quicken(lm: LM) -> LM:
    """The model for decoding on this processor: the same weights and states, other loops; itself where none help.

    Models of Llama's kind and Paceline's own; logits agree with theirs up to the rounding of sums in another order.
    """
    whole = lm.decoder if isinstance(lm, LayeredDecoder) else lm
    modules = whole.modules() if isinstance(whole, nn.Module) else ()
    large = any(isinstance(module, nn.Linear) and module.weight.numel() >= LEAST for module in modules)
    if not large or kernels() is None:  # loops compile for seconds, once: not for a model that has no use for them
        return lm
    if isinstance(lm, LayeredDecoder):
        decoder = exchange_linears(lm.decoder, QuickLinear)
        assert isinstance(decoder, Decoder)
        return LayeredDecoder(decoder)
    if type(lm) is not Llama:
        return lm
    quick = QuickLlama.__new__(QuickLlama)
    quick.__dict__.update(exchange_linears(lm, QuickLinear).__dict__)  # type: ignore[attr-defined]
    return quick
