"""Rotations that change a Llama's numbers and not what it says.

    E R,   W_qkv diag(n) R,   R' W_o,   W_gate,up diag(m) R,   R' W_down,   W_head diag(n_last) R       R: the stream
    R_l' W_v of each value head,   W_o R_l of each query head                                         R_l: layer l

The scales of RMS norms go into the maps behind them first, so that what is left of a norm commutes with rotations. A
tied output matrix is untied by that. (The authors' code also takes the mean off each embedding, which only a layer norm
forgives; here nothing changes but rounding.)
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paceline.compress._contract import exchange_linears

Stream = Float[Tensor, "d d"]
Head = Float[Tensor, "s s"]
PARTS = ("embedding", "layers", "norm", "out", "heads", "groups", "width", "eps", "policy", "embed", "through", "head")
"""What a model of Llama's kind has, as `lm/huggingface/llama.py` makes it."""


def is_llama(lm: object) -> bool:
    """Whether it is a model of Llama's kind."""
    return isinstance(lm, nn.Module) and all(hasattr(lm, part) for part in PARTS)


def rotated(lm: Any, stream: Stream, values: list[Head]) -> Any:
    """A copy with its norms folded, its stream and the value heads of each layer rotated.

    Args:
        lm: of Llama's kind.
        stream: (d, d), orthogonal.
        values: (s, s) of each layer.
    """
    places = {
        id(module): (layer, name, turn.double())
        for layer, turn in zip(lm.layers, values, strict=True)
        for name, module in layer.named_children()
    }
    stream = stream.double()

    def make(linear: nn.Linear) -> nn.Linear:
        weight, bias = linear.weight.detach().double(), None if linear.bias is None else linear.bias.detach().double()
        if linear is lm.out:
            return _linear(linear, (weight * lm.norm) @ stream, bias)
        layer, name, value = places[id(linear)]
        if name == "qkv":
            weight = (weight * layer.norm_in) @ stream
            first = (lm.heads + lm.groups) * lm.width
            weight[first:] = heads(weight[first:].T, value).T
            if bias is not None:
                bias[first:] = heads(bias[first:], value)
        elif name == "gate_up":
            weight = (weight * layer.norm_mid) @ stream
        else:
            weight = stream.T @ (heads(weight, value) if name == "o" else weight)
            bias = None if bias is None else bias @ stream
        return _linear(linear, weight, bias)

    twin: Any = exchange_linears(lm, make)
    twin.embedding = (lm.embedding.double() @ stream).to(lm.embedding)
    twin.norm = torch.ones_like(lm.norm)
    for layer in twin.layers:
        layer.norm_in, layer.norm_mid = torch.ones_like(layer.norm_in), torch.ones_like(layer.norm_mid)
    return twin


def heads(x: Float[Tensor, "*b h_s"], turn: Head) -> Float[Tensor, "*b h_s"]:
    """Each head of the last dimension turned."""
    return (x.unflatten(-1, (-1, len(turn))) @ turn).flatten(-2)


def _linear(like: nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, "meta")
    made.weight = nn.Parameter(weight.to(like.weight), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.to(like.weight), requires_grad=False)
    return made
