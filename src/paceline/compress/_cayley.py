"""Gradient steps on rotations that stay rotations: SGD on the Stiefel manifold by the Cayley transform.

    V = momentum V - G',   A = V X - X' (X V X) / 2,   W = A - A',   a = min(rate, 1 / (|W|_1 + 1e-8))
    Y = X' + a V,   five times   Y = X' + a W (X' + Y) / 2,   X = Y',   V = W X'

for a matrix X whose rows are orthonormal and the gradient G of the loss. The loop is a fixed-point iteration for
(I - a W / 2)^-1 (I + a W / 2) X', the Cayley transform of a skew matrix, which is orthogonal. (Li, Li and Todorovic:
Efficient Riemannian Optimization on the Stiefel Manifold via the Cayley Transform, 2020, arXiv 2002.01113.)
"""

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDS = 5
"""Of the fixed-point iteration."""
TINY = 1e-8


class Cayley:
    """The optimiser of square rotations.

    Args:
        rotations: square, orthogonal; changed in place at each step; each has its gradient by then.
        rate: of the steps; the schedule may set it anew.
        momentum: share of the last step's direction that goes on.
    """

    def __init__(self, rotations: list[Tensor], rate: float, momentum: float = 0.0) -> None:
        self.rotations, self.rate, self.momentum = rotations, rate, momentum
        self.directions = [torch.zeros_like(rotation, requires_grad=False) for rotation in rotations]

    @torch.no_grad()
    def step(self) -> None:
        """Go down once; rotations without a gradient stay."""
        for number, rotation in enumerate(self.rotations):
            if rotation.grad is not None:
                v = self.momentum * self.directions[number] - rotation.grad.T
                after, self.directions[number] = cayley(rotation, v, self.rate)
                rotation.copy_(after)


def cayley(
    rotation: Float[Tensor, "n n"], direction: Float[Tensor, "n n"], rate: float
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """The rotation after a step, and the direction that it took."""
    x = rotation / (rotation.norm(dim=1, keepdim=True) + TINY)
    a = direction @ x
    a = a - 0.5 * x.T @ (x @ a)
    w = a - a.T
    length = min(rate, float(1 / (w.abs().sum(0).max() + TINY)))
    y = x.T + length * direction
    for _ in range(ROUNDS):
        y = x.T + length * w @ (0.5 * (x.T + y))
    return y.T.contiguous(), w @ x.T


def nearest_rotation(x: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The orthogonal matrix nearest to x, float64: straightens what unfinished iterations have bent."""
    u, _, v = torch.linalg.svd(x.detach().double())
    return u @ v
