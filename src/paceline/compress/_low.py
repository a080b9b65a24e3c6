"""What ways to few bits share: which maps take them, what happens to their inputs and to the cache."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.compress._cache import CodedCache
from paceline.compress._contract import Compression, exchange_linears
from paceline.compress._grid import encode, weight_scale
from paceline.compress._packed import Inputs, PackedLinear, settings
from paceline.compress._rotate import is_llama
from paceline.core.errors import PacelineError
from paceline.core.state import LM

PLAIN = 16
"""Bits that stand for "as they are", whatever the model's own precision."""


class Kept(nn.Module):
    """A linear map with weights as they are, of which only the inputs change."""

    def __init__(self, weight: Tensor, bias: Tensor | None, inputs: Inputs) -> None:
        super().__init__()
        self.weight, self.bias, self.inputs = weight, bias, inputs

    @property
    def settings(self) -> dict[str, int | bool]:
        """See `PackedLinear.settings`."""
        return settings(self.weight.shape[1], PLAIN, self.inputs)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """The map of what happens to its inputs."""
        return functional.linear(self.inputs.of(x), self.weight, self.bias)


class LowBits(Compression):
    """Weights, activations and cache in few bits.

    Args:
        weights: bits of a weight, 4 or 8, symmetric; 16 leaves them.
        activations: bits of what a map reads, 4 or 8, asymmetric, a token at a time; 16 leaves them.
        cache: bits of a key's or value's number, 4 or 8, asymmetric, a token and head at a time; 16 leaves them.
        group: inputs of an output that share a scale; 0: all.
        clip: shrinkages of each scale that are tried; 0: none (the authors of SpinQuant try 80).

    Raises:
        PacelineError: other bits, or a group or number of shrinkages below 0.
    """

    turned = False
    """Whether `down` maps and queries and keys are turned by a Hadamard matrix."""

    def __init__(self, weights: int, activations: int, cache: int, group: int, clip: int) -> None:
        for name, value in (("weights", weights), ("activations", activations), ("cache", cache)):
            if value not in (4, 8, PLAIN):
                raise PacelineError(f"{type(self).__name__}: {name} must take 4, 8 or 16 bits, not {value!r}.")
        for name, value in (("group", group), ("clip", clip)):
            if value < 0:
                raise PacelineError(f"{type(self).__name__}: {name} must be 0 or more, not {value!r}.")
        self.weights, self.activations, self.cache, self.group, self.clip = weights, activations, cache, group, clip

    @property
    def bits(self) -> float:
        """Those of a weight, and a float32 scale for each output or group; 32 where weights stay."""
        return 32.0 if self.weights == PLAIN else self.weights + 32 / (self.group or 1024)

    @abstractmethod
    def apply(self, lm: LM) -> LM:
        """See `Compression.apply`."""

    def exchanged(self, lm: LM, make: Callable[[nn.Linear, Inputs], nn.Module]) -> Any:
        """A copy whose maps `make` has made, all but the output matrix if there are others. The cache stays.

        Raises:
            PacelineError: there are no maps, a width is no multiple of `group`, or the cache cannot take few bits.
        """
        if self.cache != PLAIN and isinstance(lm, nn.Module) and not is_llama(lm):
            raise PacelineError(
                f"{type(lm).__name__} has no cache that could take {self.cache} bits: write cache=16, or give a model "
                "of Llama's kind."
            )
        named = dict(lm.named_modules(remove_duplicate=False)) if isinstance(lm, nn.Module) else {}
        names = {id(module): name for name, module in named.items() if isinstance(module, nn.Linear)}
        linears = {id(module): module for module in named.values() if id(module) in names}
        inner = {key for key, module in linears.items() if module.out_features != lm.vocab_size} or set(linears)

        def one(linear: nn.Linear) -> nn.Module:
            if id(linear) not in inner:
                return linear
            if self.group and linear.in_features % self.group:
                raise PacelineError(
                    f"A map of {linear.in_features} inputs has no whole groups of {self.group}: give another group."
                )
            return make(linear, self._inputs(lm, names[id(linear)]))

        return exchange_linears(lm, one)

    def _inputs(self, lm: Any, name: str) -> Inputs:
        """The outputs of heads are on a grid a head, as in the authors' code."""
        part = name.rpartition(".")[2] if is_llama(lm) else ""
        return Inputs(self.activations, lm.width if part == "o" else 0, self.turned and part == "down")

    def with_cache(self, lm: Any) -> Any:
        """The copy with its cache in few bits."""
        if self.cache != PLAIN or self.turned:
            lm.policy = CodedCache(self.cache, self.turned)
        return lm

    def nearest(self, linear: nn.Linear, inputs: Inputs) -> nn.Module:
        """The map rounded to nearest."""
        weight = linear.weight.detach()
        weight = _turned(weight, inputs)
        bias = None if linear.bias is None else linear.bias.detach()
        if self.weights == PLAIN:
            return Kept(weight, bias, inputs)
        scale = weight_scale(weight.float(), self.weights, self.group, self.clip)
        return PackedLinear(encode(weight.float(), scale, self.weights), scale, bias, self.weights, inputs)


def _turned(weight: Float[Tensor, "o i"], inputs: Inputs) -> Float[Tensor, "o i"]:
    """The weights that give the same with turned inputs."""
    return Inputs(turned=inputs.turned).of(weight.double()).to(weight.dtype) if inputs.turned else weight


def hidden(lm: Any, ids: Tensor) -> None:
    """Run every map of a model on texts side by side; of a Llama without its output matrix, which is large."""
    with torch.no_grad():
        if is_llama(lm):
            lm.through(lm.embed(ids), lm.initial_state(len(ids)).layers, 0)
        else:
            lm(ids, None)
