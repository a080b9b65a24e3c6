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
from paceline.context.full import Full
from paceline.core.growing import room
from paceline.core.state import LM
from paceline.lm.decoder import Decoder
from paceline.lm.huggingface.llama import Llama
from paceline.lm.layers import LayeredDecoder

LEAST = 2**16
"""Weights of a map below which calling a loop costs more than it saves."""
PIECE = 256
"""Tokens of a cache that are worth a piece of their own."""


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
    """A model of Llama's kind that takes few tokens in compiled loops: all layers in one where nothing is forgotten,
    else two a layer, before attention and after it."""

    def through(
        self,
        x: Float[Tensor, "b t d"],
        past: Sequence[Mapping[str, Tensor]],
        start: int,
        positions: Int[Tensor, "#b t"] | None = None,
        first: int = 0,
        mask: Tensor | None = None,
    ) -> tuple[Float[Tensor, "b t d"], tuple[Mapping[str, Tensor], ...]]:
        """See `Llama.through`."""
        packs = self._packs() if len(x) == 1 and can(x[0]) else None
        if packs is None:
            return super().through(x, past, start, positions, first, mask)
        _steps().use_threads(torch.get_num_threads())
        at = torch.arange(start, start + x.shape[1]) if positions is None else positions[0]
        turn = self.cos[at].numpy(), self.sin[at].numpy()
        padding = 0 if x.shape[1] == 1 else -x.shape[1] % 4
        rows = functional.pad(x[0], (0, 0, 0, padding)) if padding else x[0].clone()
        whole = type(self.policy) is Full and first == 0 and len(past) == self.depth and mask is None
        held = {m["k"].shape[2] for m in past} if whole else set()  # not `start`, where a prompt was cut down
        if len(held) == 1:
            after = self._stacked(rows, x.shape[1], past, held.pop(), turn, packs)
        else:
            after = self._one_by_one(rows, x.shape[1], past, Place(first, self.depth, start, mask), turn, packs)
        return rows[None, : x.shape[1]], after

    def _stacked(
        self, rows: Tensor, tokens: int, past: Sequence[Mapping[str, Tensor]], held: int, turn: tuple[Any, Any],
        packs: tuple[Any, ...],
    ) -> tuple[Mapping[str, Tensor], ...]:  # fmt: skip
        """All layers in one loop; `rows` (t, d), padded, in and out."""
        after = tuple({name: room(m[name], tokens) for name in ("k", "v")} for m in past)
        keys, values = (tuple(m[name]._base.numpy()[0] for m in after) for name in ("k", "v"))  # type: ignore[union-attr]
        scratch = [array.numpy() for array in self._scratch(rows)]
        _steps().stack(
            rows.numpy(), tokens, self.heads, *packs, self.eps, *turn, self.heads + self.groups, held + tokens, keys,
            values, *self._splits(rows, held + tokens, scratch),
        )  # fmt: skip
        return after

    def _one_by_one(
        self, rows: Tensor, tokens: int, past: Sequence[Mapping[str, Tensor]], place: Place, turn: tuple[Any, Any],
        packs: tuple[Any, ...],
    ) -> tuple[Mapping[str, Tensor], ...]:  # fmt: skip
        """Two loops a layer, before attention and after it; `rows` (t, d), padded, in and out."""
        w_qkv, s_qkv, w_o, s_o, w_up, s_up, w_down, s_down, norm_in, norm_mid = packs
        steps, alone, memories = _steps(), tokens == 1 and place.mask is None, []
        x, (normed, _, _, both, middle, out) = rows.numpy(), (array.numpy() for array in self._scratch(rows))
        for i, memory in enumerate(past, place.layer):
            qkv = rows.new_empty(len(rows), len(w_qkv[i]))  # of each layer anew: policies may keep what they are given
            steps.before(
                x, norm_in[i], self.eps, w_qkv[i], s_qkv[i], *turn, self.heads + self.groups, normed, qkv.numpy()
            )
            split = qkv[:tokens].view(1, tokens, -1, self.width).transpose(1, 2)
            q, k, v = split.split((self.heads, self.groups, self.groups), dim=1)
            here = replace(place, layer=i)
            quick = self.policy.attend_quickly(q, k, v, memory, here) if alone else None
            read, memory = self.policy.attend(q, k, v, memory, here) if quick is None else quick
            heads = functional.pad(read.transpose(1, 2).reshape(tokens, -1), (0, 0, 0, len(rows) - tokens))
            steps.after(
                x, heads.numpy(), w_o[i], s_o[i], norm_mid[i], self.eps, w_up[i], s_up[i], w_down[i], s_down[i],
                normed, both, middle, out,
            )  # fmt: skip
            x[:] = out
            memories.append(memory)
        return tuple(memories)

    def _packs(self) -> tuple[Any, ...] | None:
        """The layers' weights as the loops read them, or None where some layer is not plain."""
        kept = self.__dict__.get("_kept")
        if kept is None or kept[0] is not self.layers:  # a copy with other maps has other layers
            self.__dict__["_kept"] = kept = (self.layers, _packed(self.layers))
        packs: tuple[Any, ...] | None = kept[1]
        return packs if packs is not None and _steps() is not None else None

    def _scratch(self, rows: Tensor) -> tuple[Tensor, ...]:
        """What a layer writes and forgets: the normed input, queries, keys and values, what is read, gates with what
        they let through, the product of both, the output."""
        layer: Any = self.layers[0]
        t, d, both = *rows.shape, len(layer.gate_up.packed)
        heads = self.heads * self.width
        sizes = (d, heads + 2 * self.groups * self.width, heads, both, both // 2, d)
        return tuple(rows.new_empty(t, size) for size in sizes)

    def _splits(self, rows: Tensor, held: int, scratch: Sequence[Any]) -> tuple[Any, ...]:
        """How many pieces the cache is read in, `scratch`, and that of the pieces."""
        splits = max(1, min(held // PIECE, 2 * torch.get_num_threads()))
        pieces = (self.groups * splits, len(rows), self.heads // self.groups)
        sizes = ((*pieces, -(-held // splits)), pieces, pieces, (*pieces, self.width))
        return (splits, *scratch, *(rows.new_empty(size).numpy() for size in sizes))


def _packed(layers: Any) -> tuple[Any, ...] | None:
    """Of each layer by kind: weights and scales of its maps, then the norms' weights."""
    maps = [(layer.qkv, layer.o, layer.gate_up, layer.down) for layer in layers]
    kinds = {m.packed.dtype for ms in maps for m in ms if hasattr(m, "packed")}
    plain = all(m.bias is None and hasattr(m, "packed") for ms in maps for m in ms)
    if not plain or len(kinds) != 1 or any(layer.norm_q is not None for layer in layers):
        return None
    arrays = [[array for m in ms for array in _arrays(m)] for ms in maps]
    norms = [[layer.norm_in.numpy(), layer.norm_mid.numpy()] for layer in layers]
    return tuple(map(tuple, zip(*(a + n for a, n in zip(arrays, norms, strict=True)), strict=True)))


def _arrays(linear: Any) -> tuple[Any, Any]:
    return linear.packed.numpy(), linear.scale.numpy()


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
