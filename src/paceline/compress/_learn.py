"""Learning SpinQuant's rotations: of the residual stream and of each layer's value heads, by Cayley SGD.

    minimise over R, R_1 .. R_L the loss of the next token, with weights, activations and cache on their grids

Gradients pass straight through the grids. A step rotates every weight anew: 4 d^2 operations for each column that the
stream reads or writes, and a forward and backward pass of one text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.compress._cache import attention
from paceline.compress._cayley import Cayley, nearest_rotation
from paceline.compress._contract import exchange_linears
from paceline.compress._grid import on_grid, rounded, weight_scale
from paceline.compress._hadamard import random_rotation, turn
from paceline.compress._rotate import heads
from paceline.core.seeds import derive

Stream = Float[Tensor, "d d"]
Head = Float[Tensor, "s s"]
Report = Callable[[int, float], None]
"""(step, loss)."""


class Grids(NamedTuple):
    """Bits of weights, activations and cache, 16 for none; and of the weights' scales as `LowBits` has them."""

    weights: int
    activations: int
    cache: int
    group: int = 0
    clip: int = 0


@dataclass
class Rotations:
    """What is learned."""

    stream: Stream
    """Of the residual stream."""
    values: list[Head]
    """Of the value heads of each layer."""

    @property
    def all(self) -> list[Tensor]:
        """Every one."""
        return [self.stream, *self.values]


def random_rotations(lm: Any, seed: int) -> Rotations:
    """Random Hadamard matrices, in float64."""
    draws = torch.Generator().manual_seed(derive(seed, "rotations"))
    values = [random_rotation(lm.width, draws) for _ in lm.layers]
    return Rotations(random_rotation(lm.embedding.shape[1], draws), values)


def learned(
    lm: Any, rotations: Rotations, ids: Int[Tensor, "n t"], steps: int, rate: float, grids: Grids,
    report: Report | None = None,
) -> Rotations:  # fmt: skip
    """The rotations after so many steps, a text each in turn, at a rate that falls linearly to 0.

    Args:
        lm: of Llama's kind.
        rotations: to begin with.
        ids: the texts.
        steps: how many.
        rate: of the first; the step itself is bounded (`_cayley.py`).
        grids: what the loss sees rounded.
        report: hears of each step.
    """
    rotations = Rotations(rotations.stream.to(lm.embedding), [r.to(lm.embedding) for r in rotations.values])
    for rotation in rotations.all:
        rotation.requires_grad_()
    model, optimiser = _learning(lm, rotations, grids), Cayley(rotations.all, rate)
    with torch.enable_grad():
        for step in range(steps):
            text = ids[step % len(ids)].unsqueeze(0)
            x, _ = model.through(model.embed(text) @ rotations.stream, ({},) * len(model.layers), 0)
            loss = functional.cross_entropy(model.head(x)[0, :-1], text[0, 1:])
            for rotation, gradient in zip(rotations.all, torch.autograd.grad(loss, rotations.all), strict=True):
                rotation.grad = gradient
            optimiser.rate = rate * (1 - step / steps)
            optimiser.step()
            if report is not None:
                report(step, float(loss.detach()))
    return Rotations(nearest_rotation(rotations.stream), [nearest_rotation(r) for r in rotations.values])


def _learning(lm: Any, rotations: Rotations, grids: Grids) -> Any:
    """A copy that says what the rotated and rounded model would, with gradients of the rotations."""
    places = {
        id(module): (name, layer, value)
        for layer, value in zip(lm.layers, rotations.values, strict=True)
        for name, module in layer.named_children()
    }

    def make(linear: nn.Linear) -> nn.Module:
        if id(linear) not in places:
            return _Back(linear, rotations, lm.norm)
        name, layer, value = places[id(linear)]
        norm = {"qkv": layer.norm_in, "gate_up": layer.norm_mid}.get(name)
        values = lm.groups * lm.width if name == "qkv" else 0
        return _Turning(linear, name, norm, values, rotations, value, grids)

    twin: Any = exchange_linears(lm, make)
    twin.policy, twin.norm = _Caching(grids.cache), torch.ones_like(lm.norm)
    for layer in twin.layers:
        layer.norm_in, layer.norm_mid = torch.ones_like(layer.norm_in), torch.ones_like(layer.norm_mid)
    return twin


class _Turning(nn.Module):
    """A map whose weights are rotated, and rounded if they are to be, each time that it is called."""

    def __init__(
        self, linear: nn.Linear, name: str, norm: Tensor | None, values: int, rotations: Rotations, value: Tensor,
        grids: Grids,
    ) -> None:  # fmt: skip
        super().__init__()
        weight = linear.weight.detach()
        self.weight = weight * norm if norm is not None else turn(weight) if name == "down" else weight
        self.bias, self.name, self.values, self.rotations, self.value = linear.bias, name, values, rotations, [value]
        self.grids = grids

    def forward(self, x: Float[Tensor, "b t i"]) -> Float[Tensor, "b t o"]:
        """Inputs and outputs are rotated."""
        stream, value = self.rotations.stream, self.value[0]
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if self.name == "qkv":
            weight, first = weight @ stream, len(weight) - self.values
            weight = torch.cat((weight[:first], heads(weight[first:].T, value).T))
            bias = None if bias is None else torch.cat((bias[:first], heads(bias[first:], value)))
        elif self.name == "gate_up":
            weight = weight @ stream
        else:
            weight = stream.T @ (heads(weight, value) if self.name == "o" else weight)
            bias = None if bias is None else bias @ stream
        grids = self.grids
        if grids.weights < 16:
            plain = weight.detach()
            scale = weight_scale(plain, grids.weights, grids.group, grids.clip).unsqueeze(2)
            parts = plain.unflatten(1, (scale.shape[1], -1))
            weight = weight + ((rounded(parts, scale, grids.weights) * scale).flatten(1) - plain)
        x = turn(x) if self.name == "down" else x
        x = on_grid(x, grids.activations, len(value) if self.name == "o" else 0)
        return functional.linear(x, weight, bias)


class _Back(nn.Module):
    """The output matrix, of what is rotated back."""

    def __init__(self, linear: nn.Linear, rotations: Rotations, norm: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.rotations, self.norm = linear.weight.detach(), linear.bias, rotations, norm

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t v"]:
        """Logits."""
        return functional.linear(x @ self.rotations.stream.T * self.norm, self.weight, self.bias)


class _Caching:
    """A policy that remembers nothing, for one text at once, with gradients."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, memory: Mapping[str, Tensor], place: Any
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Queries and keys turned; keys and values on their grids."""
        return attention(turn(q), on_grid(turn(k), self.bits), on_grid(v, self.bits), None), memory
