"""Causal linear attention by the exponential's second Taylor polynomial, as chunked products with their gradient.

    y_i = f(q_i) (s + sum_{j<=i} f(k_j) v_j^T),     f(q) . f(k) = 1 + q . k + (q . k)^2 / 2

The features are ten times as wide as queries and keys, so a slab of tokens is taken at a time, and the gradient
computes them anew: kept for it are the inputs alone, and the state before each slab.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

CHUNK = 128
SLAB = 16 * CHUNK
"""Tokens that are taken together."""

Tokens = Float[Tensor, "b t heads n"]
Values = Float[Tensor, "b t heads e"]
State = Float[Tensor, "b heads f e"]


def polynomial(scores: Tensor) -> Tensor:
    """1 + s + s^2 / 2, at least 1/2."""
    return torch.add(0.5, (scores + 1).square_(), alpha=0.5)


def expanded(n: int) -> int:
    """Features of n numbers."""
    return 1 + n + n * (n + 1) // 2


def _pairs(n: int) -> Iterator[tuple[slice, slice, slice]]:
    """Where among the features the products of two different numbers stand, each once, and which these are."""
    at = 1 + 2 * n
    for shift in range(1, (n + 1) // 2):
        yield slice(at, at + n - shift), slice(0, n - shift), slice(shift, n)
        yield slice(at + n - shift, at + n), slice(n - shift, n), slice(0, shift)
        at += n
    if n % 2 == 0:
        yield slice(at, at + n // 2), slice(0, n // 2), slice(n // 2, n)


class Features(torch.autograd.Function):
    """f(x), (..., n, c) -> (..., f, c): 1, the numbers, their squares over the root of 2, their products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """f(x)."""
        ctx.save_for_backward(x)
        n = x.shape[-2]
        out = x.new_empty(*x.shape[:-2], expanded(n), x.shape[-1])
        out[..., 0, :] = 1
        out[..., 1 : n + 1, :] = x
        torch.mul(x, x, out=out[..., n + 1 : 2 * n + 1, :]).mul_(2**-0.5)
        for place, a, b in _pairs(n):
            torch.mul(x[..., a, :], x[..., b, :], out=out[..., place, :])
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """To x, of a gradient to f(x)."""
        return to_numbers(ctx.saved_tensors[0], gradient)


def to_numbers(x: Tensor, gradient: Tensor) -> Tensor:
    """What a gradient to f(x) is to x."""
    n = x.shape[-2]
    out = gradient[..., 1 : n + 1, :].clone()
    out.addcmul_(x, gradient[..., n + 1 : 2 * n + 1, :], value=2**0.5)
    for place, a, b in _pairs(n):
        out[..., a, :].addcmul_(gradient[..., place, :], x[..., b, :])
        out[..., b, :].addcmul_(gradient[..., place, :], x[..., a, :])
    return out


def features(x: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b f c"]:
    """f(x)."""
    return Features.apply(x)


def _fold(x: Tensor, chunk: int, dtype: torch.dtype) -> Float[Tensor, "b heads chunks c n"]:
    """Dense, with zeros after the end."""
    x = functional.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % chunk)) if x.shape[1] % chunk else x
    return x.unflatten(1, (-1, chunk)).permute(0, 3, 1, 2, 4).to(dtype)


def _columns(x: Tokens, chunk: int, dtype: torch.dtype) -> Float[Tensor, "b heads chunks n c"]:
    return _fold(x, chunk, dtype).transpose(-1, -2).contiguous()


def _unfold(x: Float[Tensor, "b heads chunks c n"], tokens: int) -> Tokens:
    return x.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :tokens]


def told(k: Tokens, v: Values, dtype: torch.dtype) -> State:
    """The sum of f(k_j) v_j^T over a prompt, in this precision."""
    chunk, parts = min(CHUNK, k.shape[1]), []
    for keys, values in zip(k.split(SLAB, dim=1), v.split(SLAB, dim=1), strict=True):
        parts.append((features(_columns(keys, chunk, dtype)) @ _fold(values, chunk, dtype)).sum(dim=2))
    return torch.stack(parts).sum(dim=0)


class Prefix(torch.autograd.Function):
    """y (b, t, heads, e) and the state after the last token, of q, k, v and a state, in the state's precision."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Slab by slab."""
        chunk, outputs, states = min(CHUNK, q.shape[1]), [], []
        for slab in zip(*(z.split(SLAB, dim=1) for z in (q, k, v)), strict=True):
            states.append(s)
            qc, kc, vc = (fold(z, chunk, s.dtype) for fold, z in zip((_columns, _columns, _fold), slab, strict=True))
            before, s = _sums(features(kc) @ vc, s)
            inside = polynomial(qc.transpose(-1, -2) @ kc).tril_() @ vc
            outputs.append(_unfold(inside + features(qc).transpose(-1, -2) @ before, slab[0].shape[1]))
        ctx.save_for_backward(q, k, v, *states)
        return torch.cat(outputs, dim=1), s

    @staticmethod
    def backward(ctx: Any, to_y: Tensor, to_s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The last slab first."""
        q, k, v, *states = ctx.saved_tensors
        chunk, found = min(CHUNK, q.shape[1]), []
        slabs = zip(*(z.split(SLAB, dim=1) for z in (q, k, v, to_y)), states, strict=True)
        for *slab, s in reversed(list(slabs)):
            qc, kc = (_columns(z, chunk, s.dtype) for z in slab[:2])
            vc, to_yc = (_fold(z, chunk, s.dtype).contiguous() for z in slab[2:])
            fq, fk = features(qc), features(kc)
            before, _ = _sums(fk @ vc, s)
            scores = qc.transpose(-1, -2) @ kc
            weights = polynomial(scores).tril_()
            to_scores = (to_yc @ vc.transpose(-1, -2)).mul_(scores.add_(1)).tril_()
            to_left, to_s = _sums_backward(fq @ to_yc, to_s)
            to_q = to_numbers(qc, before @ to_yc.transpose(-1, -2)) + kc @ to_scores.transpose(-1, -2)
            to_k = to_numbers(kc, to_left @ vc.transpose(-1, -2)) + qc @ to_scores
            to_v = weights.transpose(-1, -2) @ to_yc + fk.transpose(-1, -2) @ to_left
            tokens = slab[0].shape[1]
            found.append([_unfold(z, tokens) for z in (to_q.transpose(-1, -2), to_k.transpose(-1, -2), to_v)])
        gradients = [torch.cat(parts[::-1], dim=1) for parts in zip(*found, strict=True)]
        return *(g.to(z.dtype) for g, z in zip(gradients, (q, k, v), strict=True)), to_s  # type: ignore[return-value]


def _sums(left: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The state before each chunk, and after the last, of what each leaves behind."""
    after = left.cumsum(dim=2).add_(s.unsqueeze(2))
    return torch.cat((s.unsqueeze(2), after[:, :, :-1]), dim=2), after[:, :, -1]


def _sums_backward(to_before: Tensor, to_after: Tensor) -> tuple[Tensor, Tensor]:
    """What gradients to `_sums`'s outputs are to its inputs."""
    later = to_before.flip(2).cumsum(dim=2).flip(2).add_(to_after.unsqueeze(2))  # of a chunk and all behind it
    return torch.cat((later[:, :, 1:], to_after.unsqueeze(2)), dim=2), later[:, :, 0]


def prefix_attention(q: Tokens, k: Tokens, v: Values, s: State) -> tuple[Values, State]:
    """y, and the state after the last token."""
    y, after = Prefix.apply(q, k, v, s)
    return y, after


def products(batch: int, heads: int, n: int, e: int, length: int, prompt: int) -> float:
    """Forward operations in the matrix products of `prefix_attention`, and of `told` for a prompt."""
    chunk = min(CHUNK, length)
    filled = -(-length // chunk) * chunk
    read = prompt and -(-prompt // min(CHUNK, prompt)) * min(CHUNK, prompt)
    return 2.0 * batch * heads * (filled * chunk * (n + e) + (2 * filled + read) * expanded(n) * e)
