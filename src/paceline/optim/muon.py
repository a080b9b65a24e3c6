"""Muon: a matrix moves by its momentum with all singular values made alike.

    B = beta B + (1 - beta) G                     momentum of a matrix (n, m)
    U = (1 - beta) G + beta B                     Nesterov's look ahead
    X = U / |U|,  five times:  A = X X^T,  X = a X + (b A + c A A) X      a, b, c = 3.4445, -4.7750, 2.0315
    W = W (1 - lr * decay) - lr * 0.2 sqrt(max(n, m)) X

The quintic lifts every singular value to between 0.7 and 1.2, so X is near U_svd V_svd^T of U. The factor gives a step
the size that AdamW's steps have (Liu et al. 2025, arXiv 2502.16982), so that one learning rate serves both. Embeddings
and output heads belong in a group with `matrices=False`: they follow AdamW, as the author recommends. State n m.

The iteration runs in the gradient's type, where the author's runs in bfloat16, which processors without units for it do
not speed up.
"""

import math
from typing import Any

import torch
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.optim._contract import Matrixwise, Parameters

PAPERS = (Source(title="Muon: An optimizer for hidden layers in neural networks", year=2024),)
QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(Matrixwise):
    """Orthogonalised momentum for matrices, AdamW for the rest.

    Args:
        params: parameters, or groups with settings of their own.
        lr: learning rate, the same for both rules.
        momentum: beta above.
        betas: decay of AdamW's moments.
        eps: added to the root of AdamW's second moment.
        weight_decay: see above.
        rounds: of the iteration.

    Raises:
        PacelineError: a setting out of its range.
    """

    embeddings = False

    def __init__(
        self,
        params: Parameters,
        lr: float = 3e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        rounds: int = 5,
    ) -> None:
        if rounds < 1 or not 0 <= momentum < 1:
            raise PacelineError(f"Muon cannot work with momentum={momentum}, rounds={rounds}.")
        super().__init__(params, lr, betas, eps, weight_decay, momentum=momentum, rounds=rounds)

    def direction(self, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """See `Matrixwise.direction`."""
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(grad)
        ahead = grad.lerp(state["momentum"].lerp_(grad, 1 - group["momentum"]), group["momentum"])
        return orthogonal(ahead, group["rounds"]) * (0.2 * math.sqrt(max(grad.shape)))


def orthogonal(x: Tensor, rounds: int = 5) -> Tensor:
    """A matrix (n, m) with its singular values brought near 1."""
    a, b, c = QUINTIC
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


def example() -> dict[str, float]:
    """Settings for problems of a few numbers."""
    return {"lr": 0.05, "weight_decay": 0.0}
