"""The gated selective scan of `_scan.py` as two compiled loops: imported only where numba is installed.

A job's state stays in the nearest cache for all tokens. States at the borders of tiles are kept, those inside computed
again in the backward pass, so that memory is t e numbers.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from paceline.mixers._numba import LOG2_E, compiled, exp2, jobs, run, sigmoid, threads

TILE = 32
"""Tokens between two states that are kept."""


def _forward(  # type: ignore[no-untyped-def]
    delta, x, z, b_in, c_out, a, skip, h, y, borders, after, row, low, high
):
    """Fills y, the states that enter each tile, and the last state, for channels low .. high of one sequence."""
    width, kind = high - low, a.dtype.type
    one, log2_e = kind(1), kind(LOG2_E)
    state, rates, past = h[row, :, low:high].copy(), a[:, low:high] * log2_e, skip[low:high]
    enters = np.empty(width, a.dtype)
    for t in range(delta.shape[1]):
        if t % TILE == 0:
            borders[t // TILE, row, :, low:high] = state
        step, source, gate, out = delta[row, t, low:high], x[row, t, low:high], z[row, t, low:high], y[row, t, low:high]
        for i in range(width):
            enters[i] = step[i] * source[i]
            out[i] = past[i] * source[i]
        for n in range(a.shape[0]):
            held, rate, b, c = state[n], rates[n], b_in[row, t, n], c_out[row, t, n]
            for i in range(width):
                value = exp2(step[i] * rate[i]) * held[i] + b * enters[i]
                held[i] = value
                out[i] += c * value
        for i in range(width):
            out[i] *= gate[i] * sigmoid(gate[i], one, log2_e)
    after[row, :, low:high] = state


def _backward(  # type: ignore[no-untyped-def]
    delta, x, z, b_in, c_out, a, skip, borders, dy, d_after,
    d_delta, dx, dz, da, d_skip, dh, db, dc, row, low, high,
):  # fmt: skip
    """Fills the gradients that begin with d, for channels low .. high of one sequence; w is the gradient to delta A."""
    width, kind = high - low, a.dtype.type
    one, log2_e = kind(1), kind(LOG2_E)
    rates, past = a[:, low:high] * log2_e, skip[low:high]
    carry, da_row = d_after[row, :, low:high].copy(), np.zeros_like(rates)
    states = np.empty((TILE + 1, a.shape[0], width), a.dtype)
    decays = np.empty((TILE, a.shape[0], width), a.dtype)
    entering, slopes = np.empty((TILE, width), a.dtype), np.empty((TILE, width), a.dtype)
    out, d_past, d_enters, d_step = np.empty(width, a.dtype), np.zeros(width, a.dtype), rates[0].copy(), rates[0].copy()
    for tile in range(borders.shape[0] - 1, -1, -1):
        start = tile * TILE
        size = min(TILE, delta.shape[1] - start)
        states[0] = borders[tile, row, :, low:high]
        for k in range(size):
            t = start + k
            step, source, enters, slope = delta[row, t, low:high], x[row, t, low:high], entering[k], slopes[k]
            gate, above, d_gate = z[row, t, low:high], dy[row, t, low:high], dz[row, t, low:high]
            for i in range(width):
                enters[i] = step[i] * source[i]
                out[i] = past[i] * source[i]
            for n in range(a.shape[0]):
                b, c, rate, decay = b_in[row, t, n], c_out[row, t, n], rates[n], decays[k, n]
                before, later = states[k, n], states[k + 1, n]
                for i in range(width):
                    lost = exp2(step[i] * rate[i])
                    value = lost * before[i] + b * enters[i]
                    decay[i] = lost
                    later[i] = value
                    out[i] += c * value
            for i in range(width):
                opened = sigmoid(gate[i], one, log2_e)
                slope[i] = above[i] * gate[i] * opened
                d_gate[i] = above[i] * out[i] * opened * (one + gate[i] * (one - opened))
                d_past[i] += slope[i] * source[i]
        for k in range(size - 1, -1, -1):
            t = start + k
            step, source, enters, slope = delta[row, t, low:high], x[row, t, low:high], entering[k], slopes[k]
            d_step[:], d_enters[:] = 0, 0
            for n in range(a.shape[0]):
                b, c, rate, decay = b_in[row, t, n], c_out[row, t, n], rates[n], decays[k, n]
                before, later, passed, d_rate = states[k, n], states[k + 1, n], carry[n], da_row[n]
                d_b, d_c = kind(0), kind(0)
                for i in range(width):
                    g = c * slope[i] + passed[i]
                    d_c += later[i] * slope[i]
                    d_b += g * enters[i]
                    d_enters[i] += b * g
                    g *= decay[i]
                    passed[i] = g
                    w = g * before[i]
                    d_step[i] += w * rate[i]
                    d_rate[i] += w * step[i]
                db[row, t, n], dc[row, t, n] = d_b, d_c
            to_step, to_source = d_delta[row, t, low:high], dx[row, t, low:high]
            for i in range(width):
                to_step[i] = d_step[i] * kind(1 / LOG2_E) + d_enters[i] * source[i]
                to_source[i] = d_enters[i] * step[i] + slope[i] * past[i]
    da[row, :, low:high], dh[row, :, low:high], d_skip[row, low:high] = da_row, carry, d_past


FORWARD, BACKWARD = compiled(_forward), compiled(_backward)


class CompiledScan(torch.autograd.Function):
    """`_scan.gated_scan`, of contiguous tensors of one precision in the processor's memory."""

    @staticmethod
    def forward(
        ctx: Any, delta: Tensor, x: Tensor, z: Tensor, b_in: Tensor, c_out: Tensor, a: Tensor, skip: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `gated_scan`."""
        batch, length, width = x.shape
        y, after, steps = torch.empty_like(x), torch.empty_like(h), length * h.numel()
        borders = h.new_empty(-(-length // TILE), *h.shape)
        arrays = [part.detach().numpy() for part in (delta, x, z, b_in, c_out, a, skip, h, y, borders, after)]
        run(lambda job: FORWARD(*arrays, *job), jobs(batch, width, threads(steps)), steps)
        ctx.save_for_backward(delta, x, z, b_in, c_out, a, skip, borders)
        return y, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, d_after: Tensor) -> tuple[Tensor, ...]:
        """The gradients to what `forward` was given."""
        delta, x, z, b_in, c_out, _, skip, borders = saved = ctx.saved_tensors
        batch, length, width = x.shape
        steps = length * d_after.numel()
        shares = jobs(batch, width, threads(steps))
        ranges = sorted({low for _, low, _ in shares})
        d_delta, dx, dz, da, dh = (torch.empty_like(part) for part in (delta, x, z, borders[0], borders[0]))
        d_skip = skip.new_empty(batch, width)
        db, dc = (part.new_empty(len(ranges), *part.shape) for part in (b_in, c_out))  # summed range by range
        arrays = [part.numpy() for part in (*saved, dy.contiguous(), d_after.contiguous())]
        found = [part.numpy() for part in (d_delta, dx, dz, da, d_skip, dh)]
        parts = {low: [part[i].numpy() for part in (db, dc)] for i, low in enumerate(ranges)}
        run(lambda job: BACKWARD(*arrays, *found, *parts[job[1]], *job), shares, steps)
        return d_delta, dx, dz, db.sum(0), dc.sum(0), da.sum(0), d_skip.sum(0), dh
