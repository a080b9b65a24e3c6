"""Aaren's weighted averages as two compiled loops over tokens: imported only where numba is installed.

A job is one head of one sequence. The backward pass is the same recurrence from the last token to the first: of the
gradients G and H to w and u, each in units of exp(its m), so that no exponent is above 0:

    G_t = do_t / u_t + exp(m_t - m_{t+1}) G_{t+1},   H_t = -(do_t . o_t) / u_t + exp(m_t - m_{t+1}) H_{t+1}
    dv_t = exp(s_t - m_t) G_t,   ds_t = exp(s_t - m_t) (G_t . v_t + H_t)
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from paceline.mixers._numba import LOG2_E, compiled, exp2, run


def _forward(scores, values, m, sums, out, tops, totals, m_after, after, row, head):  # type: ignore[no-untyped-def]
    """Fills what follows `sums`: the averages, the largest scores m and the sums u of each token, the last state."""
    width, kind = sums.shape[2] - 1, sums.dtype.type
    one, log2_e, first = kind(1), kind(LOG2_E), head * width
    top, total, w = m[row, head], sums[row, head, width], sums[row, head, :width].copy()
    for t in range(values.shape[1]):
        score, v, o = scores[row, head, t], values[row, t, first : first + width], out[row, t, first : first + width]
        larger = max(top, score)
        kept, new = exp2((top - larger) * log2_e), exp2((score - larger) * log2_e)
        top, total = larger, total * kept + new
        share = one / total
        for i in range(width):
            value = w[i] * kept + new * v[i]
            w[i] = value
            o[i] = value * share
        tops[row, head, t], totals[row, head, t] = top, total
    m_after[row, head], after[row, head, :width], after[row, head, width] = top, w, total


def _backward(  # type: ignore[no-untyped-def]
    scores, values, m, out, tops, totals, d_out, d_after, d_scores, d_values, d_sums, row, head
):
    """Fills the gradients to scores, values and the state before."""
    width, kind = d_after.shape[2] - 1, d_after.dtype.type
    one, log2_e, first = kind(1), kind(LOG2_E), head * width
    g, h = d_after[row, head, :width].copy(), d_after[row, head, width]
    for t in range(values.shape[1] - 1, -1, -1):
        v, o = values[row, t, first : first + width], out[row, t, first : first + width]
        slope, d_v = d_out[row, t, first : first + width], d_values[row, t, first : first + width]
        top, share = tops[row, head, t], one / totals[row, head, t]
        weight, along, across = exp2((scores[row, head, t] - top) * log2_e), kind(0), kind(0)
        kept = exp2(((tops[row, head, t - 1] if t else m[row, head]) - top) * log2_e)
        for i in range(width):
            value = g[i] + slope[i] * share
            along += slope[i] * o[i]
            across += value * v[i]
            d_v[i] = weight * value
            g[i] = kept * value
        h -= along * share
        d_scores[row, head, t] = weight * (across + h)
        h *= kept
    d_sums[row, head, :width], d_sums[row, head, width] = g, h


FORWARD, BACKWARD = compiled(_forward), compiled(_backward)


class CompiledAverages(torch.autograd.Function):
    """`aaren.averages`, of contiguous tensors of one precision in the processor's memory."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, values: Tensor, m: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `averages`."""
        out, tops, totals = torch.empty_like(values), torch.empty_like(scores), torch.empty_like(scores)
        m_after, after = torch.empty_like(m), torch.empty_like(sums)
        given = [part.detach().numpy() for part in (scores, values, m, sums)]
        arrays = [*given, *(part.numpy() for part in (out, tops, totals, m_after, after))]
        run(lambda job: FORWARD(*arrays, *job), list(np.ndindex(*m.shape)), values.numel())
        ctx.save_for_backward(scores, values, m, out, tops, totals)
        ctx.mark_non_differentiable(m_after)
        return out, m_after, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, _: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients to scores, values and sums; m is a scale that cancels."""
        scores, values, m, *_ = saved = ctx.saved_tensors
        d_scores, d_values, d_sums = torch.empty_like(scores), torch.empty_like(values), torch.empty_like(d_after)
        given = [part.detach().numpy() for part in (*saved, d_out.contiguous(), d_after.contiguous())]
        arrays = [*given, *(part.numpy() for part in (d_scores, d_values, d_sums))]
        run(lambda job: BACKWARD(*arrays, *job), list(np.ndindex(*m.shape)), values.numel())
        return d_scores, d_values, None, d_sums
