"""The same model with its linear maps compiled for few rows: what single-token steps on a processor wait for."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.compress._contract import exchange_linears
from paceline.compress._rows import can, few_rows, kernels
from paceline.context._contract import Place
from paceline.context._steps import Maps, Step
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
    """A model of Llama's kind that takes few tokens in compiled loops: all layers in one where the policy has one for
    them, else two a layer, before attention and after it."""

    def through(
        self,
        x: Float[Tensor, "b t d"],
        past: Sequence[Mapping[str, Tensor]],
        start: int,
        positions: Int[Tensor, "#b t"] | None = None,
        first: int = 0,
        mask: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t d"], Sequence[Mapping[str, Tensor]]]:
        """See `Llama.through`."""
        alone, rows = len(x) == 1, x.shape[1] == 1 and (len(x) > 1 or mask is not None)
        maps = self._maps() if (alone or rows) and can(x.flatten(0, 1)) else None
        known = self.policy.masks and (mask is None or mask.shape[1] == 1) if rows else mask is None
        whole = known and first == 0 and len(past) == self.depth
        if maps is None or not (alone or whole):
            return super().through(x, past, start, positions, first, mask)
        step = self._step(x, start, positions, mask, maps, rows)
        after = self.policy.step_quickly(step, past) if whole else None
        if after is None and not alone:
            return super().through(x, past, start, positions, first, mask)
        if after is None:
            after = self._one_by_one(step, past, Place(first, self.depth, start, mask))
        return step.x[: step.tokens].view(x.shape), after

    def _step(
        self, x: Tensor, start: int, positions: Tensor | None, mask: Tensor | None, maps: Maps, apart: bool
    ) -> Step:
        """For tokens of one sequence or, `apart`, one of each of several that see keys of their own."""
        rows = x.flatten(0, 1)
        at = slice(start, start + x.shape[1]) if positions is None else positions.flatten()
        cos, sin = self.cos[at], self.sin[at]
        seen = None
        if apart:
            cos, sin = (table.expand(len(x), -1).contiguous() for table in (cos, sin))
            seen = torch.ones(1, start + 1, dtype=torch.bool) if mask is None else mask[:, 0, 0]
            seen = seen.expand(len(x), -1)
        filling = 0 if len(rows) == 1 else -len(rows) % 4
        filled = functional.pad(rows, (0, 0, 0, filling)) if filling else rows.clone()
        sizes = (self.heads, self.groups, self.width, self.eps)
        return Step(filled, len(rows), seen, *sizes, (cos.numpy(), sin.numpy()), maps)

    def head(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t v"]:
        """See `Llama.head`; one row in one loop."""
        out: Any = self.out
        loops = _steps() if x.shape[:2] == (1, 1) and can(x[0]) and _readable(out) else None
        if loops is None:
            return super().head(x)
        logits, normed = x.new_empty(1, 1, len(out.packed)), torch.empty_like(x[0])
        loops.use_threads(torch.get_num_threads())
        arrays = (tensor.numpy() for tensor in (out.packed, out.scale, normed, logits[0]))
        loops.finish(x[0].numpy(), self.norm.numpy(), self.eps, *arrays)
        return logits

    def _one_by_one(
        self, step: Step, past: Sequence[Mapping[str, Tensor]], place: Place
    ) -> tuple[Mapping[str, Tensor], ...]:
        """Two loops a layer, before attention and after it."""
        loops, memories = _steps(), []
        loops.use_threads(torch.get_num_threads())
        x, turned, (normed, _, _, both, middle, out) = step.x.numpy(), self.heads + self.groups, step.scratch()
        for i, memory in enumerate(past, place.layer):
            w_qkv, s_qkv, w_o, s_o, w_up, s_up, w_down, s_down, norm_in, norm_mid = (
                tensor.numpy() for tensor in step.maps.kept[i]
            )
            qkv = step.x.new_empty(len(x), len(w_qkv))  # of each layer anew: policies may keep what they are given
            loops.before(x, norm_in, step.eps, w_qkv, s_qkv, *step.turn, turned, normed, qkv.numpy())
            split = qkv[: step.tokens].view(1, step.tokens, -1, self.width).transpose(1, 2)
            q, k, v = split.split((self.heads, self.groups, self.groups), dim=1)
            read, memory = self.policy.attend(q, k, v, memory, replace(place, layer=i))
            heads = functional.pad(read.transpose(1, 2).reshape(step.tokens, -1), (0, 0, 0, len(x) - step.tokens))
            loops.after(
                x, heads.numpy(), w_o, s_o, norm_mid, step.eps, w_up, s_up, w_down, s_down, normed, both, middle, out
            )
            x[:] = out
            memories.append(memory)
        return tuple(memories)

    def _maps(self) -> Maps | None:
        """The layers' weights as the loops read them, or None where some layer is not plain."""
        kept = self.__dict__.get("_kept")
        if kept is None or kept[0] is not self.layers:  # a copy with other maps has other layers
            self.__dict__["_kept"] = kept = (self.layers, _plain(self.layers))
        maps: Maps | None = kept[1]
        return maps if maps is not None and _steps() is not None else None


def _plain(layers: Any) -> Maps | None:
    maps = [(layer.qkv, layer.o, layer.gate_up, layer.down) for layer in layers]
    if not all(_readable(m) for ms in maps for m in ms) or any(layer.norm_q is not None for layer in layers):
        return None
    if len({m.packed.dtype for ms in maps for m in ms}) > 1:
        return None
    norms = [(layer.norm_in, layer.norm_mid) for layer in layers]
    return Maps([[x for m in ms for x in (m.packed, m.scale)] + [*n] for ms, n in zip(maps, norms, strict=True)])


def _readable(linear: Any) -> bool:
    """Whether loops read this map: float32, or 8 bits with a scale for each output, and no bias."""
    packed, scale = (getattr(linear, name, None) for name in ("packed", "scale"))
    if packed is None or scale is None or linear.bias is not None or scale.shape != packed.shape[:1]:
        return False
    return packed.dtype in (torch.float32, torch.int8) and packed.is_contiguous()


@cache
def _steps() -> Any:
    return None if kernels() is None else importlib.import_module("paceline.core.step_numba")


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
