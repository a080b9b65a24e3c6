"""What an optimizer of this family is: a `torch.optim.Optimizer` that has a rule of its own for matrices.

Everything that is no matrix (norms, biases, decays) follows AdamW, as do matrices of a parameter group with
`matrices=False`, such as embeddings where a method asks for that. So one optimizer serves a whole model, under one
learning rate. All state is tensors by parameter, so `state_dict` saves it and a resumed run goes on bit for bit.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from paceline.core.errors import PacelineError

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]]
"""What torch's optimizers take: parameters, or groups of them with settings of their own."""


class Matrixwise(Optimizer):
    """An optimizer whose rule for matrices is `direction`.

    Args:
        params: parameters or groups; a group may set any of the rest, and `matrices`.
        lr: learning rate.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment.
        weight_decay: share of a weight, times the learning rate, that each step takes off it.
        more: settings of the rule.

    Attributes:
        embeddings: whether the rule suits embeddings and output heads too.

    Raises:
        PacelineError: a setting out of its range.
    """

    embeddings: bool = True

    def __init__(
        self,
        params: Parameters,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        **more: Any,
    ) -> None:
        if not (lr >= 0 and eps > 0 and weight_decay >= 0 and all(0 <= beta < 1 for beta in betas)):
            raise PacelineError(
                f"{type(self).__name__} cannot work with lr={lr}, betas={betas}, eps={eps}, "
                f"weight_decay={weight_decay}."
            )
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "matrices": True, **more}
        super().__init__(params, settings)

    @abstractmethod
    def direction(self, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor | None:
        """The step that a matrix takes, before the learning rate; None for a step in which it only learns.

        Args:
            grad: (n, m).
            state: of this parameter, kept between steps; `step` counts this one already.
            group: its settings.
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure` computes the loss anew, as torch's optimizers allow."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                state["step"] += 1
                rule = self.direction if p.ndim == 2 and group["matrices"] else adam
                move = rule(p.grad, state, group)
                if move is not None:
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(move, alpha=-group["lr"])
        return loss


def adam(grad: Tensor, state: dict[str, Any], group: dict[str, Any], steps: int | None = None) -> Tensor:
    """Adam's step in the basis that `grad` is written in: m / (sqrt(v) + eps), both without their bias towards zero.

    Args:
        grad: of any shape.
        state: keeps `exp_avg` and `exp_avg_sq`.
        group: `betas` and `eps`.
        steps: how many steps the moments have seen, this one included. Default: `state["step"]`.
    """
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(grad), torch.zeros_like(grad)
    first, second = group["betas"]
    count = int(state["step"]) if steps is None else steps
    m, v = (
        state["exp_avg"].lerp_(grad, 1 - first),
        state["exp_avg_sq"].mul_(second).addcmul_(grad, grad, value=1 - second),
    )
    return (m / (1 - first**count)) / (v / (1 - second**count)).sqrt_().add_(group["eps"])
