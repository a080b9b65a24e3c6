"""SOAP: Adam in the basis in which Shampoo's preconditioner is diagonal.

    G' = QL^T G QR                       the gradient of a matrix (n, m), turned
    V  = b2 V + (1 - b2) G'^2            second moments are kept in the turned basis
    M  = b1 M + (1 - b1) G               first moments in the weights' own, turned when used
    W  = W (1 - lr * decay) - lr QL (M' / (sqrt(V) + eps)) QR^T        with Adam's bias corrections
    L  = s L + (1 - s) G G^T,   R = s R + (1 - s) G^T G
    every `every` steps:   QL, QR = Q of the QR decomposition of (L QL), (R QR)   # one power iteration

The first gradient only sets L and R and their eigenvectors, so that no step is taken in a basis that has seen it.
Before a basis is refreshed, its vectors, and V with them, are sorted by their estimated eigenvalues. A side longer than
`largest` is not turned. Cost of a step beside Adam's: a product of (n, n) and (n, m) and one of (n, m) and (m, m) for
each of three turns and for L and R, and a QR decomposition of each side every `every` steps; state 2 n m + 2 n^2 +
2 m^2.

As in the authors' code, which keeps M turned and turns it back before each update of L and R: that is the same as M in
the weights' own basis. Parameters that are no matrices follow Adam from their first step on, where the authors let them
skip one, and decay weights before the step, where theirs decay after it: like torch's AdamW. Moments fade as AdamW's
do here, 0.9 and 0.98; the authors take 0.95 for both, and for their AdamW. Their vocabularies are longer than
`largest`, so that embeddings are turned on one side: give a model of bytes a `largest` below 256 for the same.
"""

from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.optim._contract import Matrixwise, Parameters

PAPERS = (
    Paper(
        title="SOAP: Improving and Stabilizing Shampoo using Adam",
        arxiv="2409.11321",
        year=2024,
        says="Reaches AdamW's loss in far fewer steps, and bears a basis that is seldom refreshed, unlike Shampoo.",
    ),
)


class SOAP(Matrixwise):
    """Adam in a slowly turning basis.

    Args:
        params: parameters, or groups with settings of their own.
        lr: learning rate.
        betas: decay of the moments.
        eps: added to the root of the second moment.
        weight_decay: see above.
        every: steps between refreshes of the basis.
        memory: s above, of L and R. Default: that of the second moment.
        largest: longest side that is turned.

    Raises:
        PacelineError: a setting out of its range.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        every: int = 10,
        memory: float | None = None,
        largest: int = 10_000,
    ) -> None:
        memory = betas[1] if memory is None else memory
        if every < 1 or largest < 1 or not 0 <= memory < 1:
            raise PacelineError(f"SOAP cannot work with every={every}, memory={memory}, largest={largest}.")
        super().__init__(params, lr, betas, eps, weight_decay, every=every, memory=memory, largest=largest)

    def direction(self, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor | None:
        """See `Matrixwise.direction`."""
        sides = [side for side in (0, 1) if grad.shape[side] <= group["largest"]]
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(grad), torch.zeros_like(grad)
            for side in sides:
                state[f"gram_{side}"] = (1 - group["memory"]) * _gram(grad, side)
                state[f"basis_{side}"] = torch.linalg.eigh(state[f"gram_{side}"]).eigenvectors.flip(1)
            return None
        taken = int(state["step"]) - 1
        first, second = group["betas"]
        turned = _turn(grad, state, sides)
        momentum = _turn(state["exp_avg"].lerp_(grad, 1 - first), state, sides) / (1 - first**taken)
        squares = state["exp_avg_sq"].mul_(second).addcmul_(turned, turned, value=1 - second) / (1 - second**taken)
        move = _turn_back(momentum / squares.sqrt_().add_(group["eps"] / (1 - second**taken) ** 0.5), state, sides)
        for side in sides:
            state[f"gram_{side}"].lerp_(_gram(grad, side), 1 - group["memory"])
        if taken % group["every"] == 0:
            for side in sides:
                _refresh(state, side)
        return move

    def meters(self) -> dict[str, float]:
        """`turned`: how far the bases are from the weights' own axes, where SOAP would be Adam: 0 there, below 1."""
        bases = [q for state in self.state.values() for name, q in state.items() if name.startswith("basis")]
        return {"turned": fmean(1 - q.square().amax(0).mean().item() for q in bases)} if bases else {}


def _gram(grad: Tensor, side: int) -> Tensor:
    """G G^T or G^T G."""
    return grad @ grad.T if side == 0 else grad.T @ grad


def _turn(x: Tensor, state: dict[str, Any], sides: list[int]) -> Tensor:
    x = state["basis_0"].T @ x if 0 in sides else x
    return x @ state["basis_1"] if 1 in sides else x


def _turn_back(x: Tensor, state: dict[str, Any], sides: list[int]) -> Tensor:
    x = state["basis_0"] @ x if 0 in sides else x
    return x @ state["basis_1"].T if 1 in sides else x


def _refresh(state: dict[str, Any], side: int) -> None:
    """One power iteration from the old basis, whose vectors are sorted first, with the second moments kept in it."""
    gram, basis = state[f"gram_{side}"], state[f"basis_{side}"]
    order = ((gram @ basis) * basis).sum(0).argsort(descending=True)
    state["exp_avg_sq"] = state["exp_avg_sq"].index_select(side, order)
    state[f"basis_{side}"] = torch.linalg.qr(gram @ basis[:, order]).Q


def example() -> dict[str, float]:
    """Settings for problems of a few numbers."""
    return {"lr": 0.05, "weight_decay": 0.0, "every": 2}
