"""SiLU of a short causal convolution, channel by channel, as two compiled loops: imported only where numba is."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from paceline.mixers._numba import LOG2_E, compiled, jobs, run, sigmoid, threads


def _forward(x, before, weight, bias, y, row, low, high):  # type: ignore[no-untyped-def]
    """Fills y for channels low .. high of one sequence."""
    one, log2_e, past = weight.dtype.type(1), weight.dtype.type(LOG2_E), before.shape[1]
    for t in range(x.shape[1]):
        out = y[row, t, low:high]
        out[:] = bias[low:high]
        for k in range(past + 1):
            at, scale = t + k - past, weight[k, low:high]
            seen = x[row, at, low:high] if at >= 0 else before[row, at + past, low:high]
            for i in range(high - low):
                out[i] += scale[i] * seen[i]
        for i in range(high - low):
            out[i] *= sigmoid(out[i], one, log2_e)


def _backward(  # type: ignore[no-untyped-def]
    x, before, weight, bias, dy, dx, d_before, d_weight, d_bias, row, low, high
):
    """Fills the gradients that begin with d, for channels low .. high of one sequence."""
    one, log2_e, past = weight.dtype.type(1), weight.dtype.type(LOG2_E), before.shape[1]
    out, slope = np.empty(high - low, x.dtype), dy[row]
    g, d_weights, d_biases = out.copy(), np.zeros_like(weight[:, low:high]), np.zeros_like(bias[low:high])
    d_before[row, :, low:high] = 0
    for t in range(x.shape[1]):
        dx[row, t, low:high] = 0
        above = slope[t, low:high]
        out[:] = bias[low:high]
        for k in range(past + 1):
            at, scale = t + k - past, weight[k, low:high]
            seen = x[row, at, low:high] if at >= 0 else before[row, at + past, low:high]
            for i in range(high - low):
                out[i] += scale[i] * seen[i]
        for i in range(high - low):
            opened = sigmoid(out[i], one, log2_e)
            g[i] = above[i] * opened * (one + out[i] * (one - opened))
            d_biases[i] += g[i]
        for k in range(past + 1):
            at, scale, d_scale = t + k - past, weight[k, low:high], d_weights[k]
            seen = x[row, at, low:high] if at >= 0 else before[row, at + past, low:high]
            d_seen = dx[row, at, low:high] if at >= 0 else d_before[row, at + past, low:high]
            for i in range(high - low):
                d_seen[i] += scale[i] * g[i]
                d_scale[i] += seen[i] * g[i]
    d_weight[row, :, low:high], d_bias[row, low:high] = d_weights, d_biases


FORWARD, BACKWARD = compiled(_forward), compiled(_backward)


class CompiledConvolution(torch.autograd.Function):
    """`_scan.short_convolution`, of contiguous tensors of one precision in the processor's memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `short_convolution`."""
        y, steps = torch.empty_like(x), x.numel() * len(weight)
        arrays = [part.detach().numpy() for part in (x, before, weight, bias, y)]
        run(lambda job: FORWARD(*arrays, *job), jobs(x.shape[0], x.shape[2], threads(steps)), steps)
        ctx.save_for_backward(x, before, weight, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        """The gradients to what `forward` was given."""
        x, before, weight, bias = saved = ctx.saved_tensors
        batch, _, width = x.shape
        steps = x.numel() * len(weight)
        dx, d_before, d_bias = torch.empty_like(x), torch.empty_like(before), bias.new_empty(batch, width)
        d_weight = weight.new_empty(batch, *weight.shape)
        arrays = [part.numpy() for part in (*saved, dy.contiguous(), dx, d_before, d_weight, d_bias)]
        run(lambda job: BACKWARD(*arrays, *job), jobs(batch, width, threads(steps)), steps)
        return dx, d_before, d_weight.sum(0), d_bias.sum(0)
