"""Hadamard matrices, random rotations made of them, and their product with many rows without the matrix being written.

    H_n = H_K (x) H_m / sqrt(n),   m a power of 2,   K = 1, or the least order for which Paley's construction has one

Paley I gives order q + 1 for a prime q = 3 mod 4, Paley II order 2 (q + 1) for q = 1 mod 4. A product costs
n (K + sum of factors of m) instead of n^2. Where no order fits, H is block-diagonal with blocks that are powers of 2.
"""

from functools import cache
from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor

WIDEST = 64
"""Powers of 2 are split into factors up to this one."""


def turn(x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
    """x H: each row turned by the orthonormal matrix of its width. (x H)(W H)' = x W'."""
    y = x.reshape(-1, *(len(factor) for factor in _factors(x.shape[-1])[0]))
    for axis, factor in enumerate(_factors(x.shape[-1])[0], 1):
        y = (y.movedim(axis, -1) @ factor.to(x)).movedim(-1, axis)
    return y.reshape(x.shape) * _factors(x.shape[-1])[1] ** -0.5


def random_rotation(n: int, draws: torch.Generator) -> Float[Tensor, "n n"]:
    """A random Hadamard matrix, rows of random signs; or any random rotation where none of this order is known."""
    if _factors(n)[1] < n:
        q, r = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=draws))
        return q * r.diagonal().sign()
    signs = torch.randint(2, (n, 1), generator=draws, dtype=torch.float64) * 2 - 1
    return signs * turn(torch.eye(n, dtype=torch.float64))


@cache
def _factors(n: int) -> tuple[tuple[Float[Tensor, "k k"], ...], int]:
    """Kronecker factors, and the order of the Hadamard matrix that they make or that is in each block."""
    power = n & -n
    factors, order = [torch.eye(n // power, dtype=torch.float64)], power
    if n // power > 1:
        for left in range(power.bit_length() - 1, -1, -1):  # the least core first
            core = paley(n >> left)
            if core is not None:
                factors, order, power = [core], n, 1 << left
                break
    while power > 1:
        size = min(power, WIDEST)
        factors.append(_sylvester(size))
        power //= size
    return tuple(factors), order


def _sylvester(n: int) -> Float[Tensor, "n n"]:
    h = torch.ones(1, 1, dtype=torch.float64)
    while len(h) < n:
        h = torch.cat((torch.cat((h, h), 1), torch.cat((h, -h), 1)))
    return h


def paley(n: int) -> Float[Tensor, "n n"] | None:
    """A matrix of +1 and -1 with orthogonal rows, by Paley's constructions over primes; None where they have none."""
    if n % 4:
        return None
    if (n - 1) % 4 == 3 and _prime(n - 1):
        skew = _bordered(n - 1)
        skew[1:, 0] *= -1
        return torch.eye(n, dtype=torch.float64) + skew
    half = n // 2
    if (half - 1) % 4 == 1 and _prime(half - 1):
        plus, minus = torch.tensor([[[1.0, 1.0], [1.0, -1.0]], [[1.0, -1.0], [-1.0, -1.0]]], dtype=torch.float64)
        return torch.kron(_bordered(half - 1), plus) + torch.kron(torch.eye(half, dtype=torch.float64), minus)
    return None


def _bordered(q: int) -> Float[Tensor, "n n"]:
    """The quadratic character of i - j modulo q, with a border of ones and 0 in the corner."""
    squares = torch.zeros(q, dtype=torch.float64) - 1
    squares[torch.arange(1, q).square() % q] = 1
    squares[0] = 0
    rows = torch.arange(q)
    bordered = torch.ones(q + 1, q + 1, dtype=torch.float64)
    bordered[0, 0] = 0
    bordered[1:, 1:] = squares[(rows[:, None] - rows) % q]
    return bordered


def _prime(q: int) -> bool:
    return q > 1 and all(q % k for k in range(2, isqrt(q) + 1))
