"""The selective scan: a diagonal recurrence whose decay, input and output weights change from token to token.

    h_t = exp(delta_t A) * h_{t-1} + B_t (delta_t x_t)      h in R^(n x e)
    y_t = C_t h_t                                           y in R^e

The decay differs for every token, channel and dimension, so no chunk of it is a matrix product. What does not wait for
the token before is done for a tile of tokens at once; what remains is one fused multiply-add a token over all b n e
numbers. The tile stays in the cache; the states at its borders are kept, and those inside are computed again in the
backward pass, so that memory is t e numbers and not t n e. The backward pass is written by hand, and once only: there
is no second derivative.

`gated_scan` and `short_convolution` are what stands around it in Mamba. Where numba is installed (`pip install
paceline[fast]`), single and double precision on a processor take the compiled loops of `_scan_numba.py` and
`_conv_numba.py` instead: the same numbers, sooner.
"""

import functools
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

TILE = 2**19
"""Numbers of h that a tile holds, about: what a processor's cache keeps, and enough to hide what a call costs."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that long sums are kept in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def selective_scan(
    delta: Float[Tensor, "t b e"],
    u: Float[Tensor, "t b e"],
    b_in: Float[Tensor, "t b n"],
    c_out: Float[Tensor, "t b n"],
    a: Float[Tensor, "n e"],
    h: Float[Tensor, "b n e"],
) -> tuple[Float[Tensor, "t b e"], Float[Tensor, "b n e"]]:
    """The outputs y and the last state.

    Args:
        delta: step sizes, above 0.
        u: inputs, already times delta.
        b_in: input weights B.
        c_out: output weights C.
        a: rates A, below 0.
        h: the state before the first token.
    """
    y, after = _SelectiveScan.apply(*(z.contiguous() for z in (delta, u, b_in, c_out, a, h)))
    return y, after


def gated_scan(
    delta: Float[Tensor, "b t e"],
    x: Float[Tensor, "b t e"],
    z: Float[Tensor, "b t e"],
    b_in: Float[Tensor, "b t n"],
    c_out: Float[Tensor, "b t n"],
    a: Float[Tensor, "n e"],
    skip: Float[Tensor, " e"],
    h: Float[Tensor, "b n e"],
) -> tuple[Float[Tensor, "b t e"], Float[Tensor, "b n e"]]:
    """(C h + skip x) SiLU(z) with the scan of u = delta x, in the dtype of x, and the last state.

    Args:
        delta: step sizes, above 0.
        x: inputs.
        z: gates.
        b_in: input weights B.
        c_out: output weights C.
        a: rates A, below 0.
        skip: weights D of the input in the output.
        h: the state before the first token.
    """
    inputs = (delta, x, z, b_in, c_out, a, skip, h)
    if compilable(*inputs):
        from paceline.mixers._scan_numba import CompiledScan

        gated, after = CompiledScan.apply(*(part.contiguous() for part in inputs))
        return gated, after
    step, u, writing, reading = (part.transpose(0, 1) for part in (delta, delta * x, b_in, c_out))
    y, after = selective_scan(step, u, writing, reading, a, h)
    return (y.transpose(0, 1).type_as(x) + skip * x) * functional.silu(z), after


def short_convolution(
    x: Float[Tensor, "b t e"], before: Float[Tensor, "b k e"], weight: Float[Tensor, "k+1 e"], bias: Float[Tensor, " e"]
) -> Float[Tensor, "b t e"]:
    """SiLU of a causal convolution, channel by channel, over a token and the k before it.

    Args:
        x: inputs.
        before: the last k inputs before the first.
        weight: weights, that of the token itself last.
        bias: what is added.
    """
    if compilable(x, before, weight, bias):
        from paceline.mixers._conv_numba import CompiledConvolution

        out: Tensor = CompiledConvolution.apply(*(part.contiguous() for part in (x, before, weight, bias)))
        return out
    seen, out = torch.cat((before, x), dim=1), bias
    for i, tap in enumerate(weight.unbind()):
        out = torch.addcmul(out, seen[:, i : i + x.shape[1]], tap)
    return functional.silu(out)


def compilable(*inputs: Tensor) -> bool:
    """Whether there are compiled loops and they can read the tensors: of one precision, in the processor's memory."""
    here = all(part.device.type == "cpu" for part in inputs) and not torch.compiler.is_compiling()
    return here and {part.dtype for part in inputs} in ({torch.float32}, {torch.float64}) and _has_numba()


@functools.cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


def _tile(h: Tensor) -> int:
    return max(16, min(256, TILE // h.numel()))


def _decays(delta: Tensor, a: Tensor, out: Tensor) -> Tensor:
    """exp(delta A), (k, b, n, e)."""
    return torch.mul(delta.unsqueeze(2), a, out=out).exp_()


class _SelectiveScan(torch.autograd.Function):
    """See `selective_scan`. Names beginning with d are gradients; w is the gradient to delta A."""

    @staticmethod
    def forward(
        ctx: Any, delta: Tensor, u: Tensor, b_in: Tensor, c_out: Tensor, a: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        length, tile, y = delta.shape[0], _tile(h), torch.empty_like(u)
        room = (min(tile, length), *h.shape)
        decays, states, borders = u.new_empty(room), u.new_empty(room), []
        for start in range(0, length, tile):
            borders.append(h)
            part = slice(start, start + tile)
            size = u[part].shape[0]
            _decays(delta[part], a, out=decays[:size])
            torch.mul(b_in[part].unsqueeze(3), u[part].unsqueeze(2), out=states[:size])
            for decay, state in zip(decays[:size].unbind(), states[:size].unbind(), strict=True):
                h = state.addcmul_(decay, h)
            h = h.clone()  # the buffer is used again
            torch.sum(states[:size].mul_(c_out[part].unsqueeze(3)), 2, out=y[part])
        ctx.save_for_backward(delta, u, b_in, c_out, a, *borders)
        return y, h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor, ...]:
        delta, u, b_in, c_out, a, *borders = ctx.saved_tensors
        length, tile, dy = delta.shape[0], _tile(borders[0]), dy.contiguous()
        size = min(tile, length)
        decays, grads = (u.new_empty(size, *dh.shape) for _ in range(2))
        states = u.new_empty(size + 1, *dh.shape)
        d_delta, du, db, dc = (torch.empty_like(z) for z in (delta, u, b_in, c_out))
        da, carry = torch.zeros_like(dh), dh
        for start in reversed(range(0, length, tile)):
            part = slice(start, start + tile)
            size = u[part].shape[0]
            lost = _decays(delta[part], a, out=decays[:size])
            states[0] = borders[start // tile]
            after, g = states[1 : size + 1], grads[:size]
            torch.mul(b_in[part].unsqueeze(3), u[part].unsqueeze(2), out=after)
            torch.mul(c_out[part].unsqueeze(3), dy[part].unsqueeze(2), out=g)
            steps, h, gs = lost.unbind(), states[: size + 1].unbind(), g.unbind()
            for i in range(size):
                h[i + 1].addcmul_(steps[i], h[i])
            gs[-1].add_(carry)
            for i in range(size - 2, -1, -1):
                gs[i].addcmul_(steps[i + 1], gs[i + 1])
            carry = gs[0] * steps[0]

            rows = g.flatten(0, 1)  # a row for each token of each sequence
            dc[part] = (after.flatten(0, 1) @ dy[part].flatten(0, 1).unsqueeze(2)).view_as(dc[part])
            db[part] = (rows @ u[part].flatten(0, 1).unsqueeze(2)).view_as(db[part])
            du[part] = (b_in[part].flatten(0, 1).unsqueeze(1) @ rows).view_as(du[part])
            w = lost.mul_(states[:size]).mul_(g)
            d_delta[part] = torch.mul(w, a, out=g).sum(2)
            da += w.mul_(delta[part].unsqueeze(2)).sum(0)
        return d_delta, du, db, dc, da.sum(0), carry
