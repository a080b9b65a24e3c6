"""AdamW: every number moves by its mean gradient over the root of its mean squared gradient.

    m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
    w = w (1 - lr * decay) - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

State 2 n for n numbers. torch's own, fused into one kernel: the baseline of the family.
"""

from typing import Any

import torch

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.optim._contract import Parameters

PAPERS = (Source(title="Decoupled Weight Decay Regularization", arxiv="1711.05101", year=2019),)


class AdamW(torch.optim.AdamW):
    """torch's, fused.

    Args:
        params: parameters, or groups with settings of their own.
        lr: learning rate.
        betas: decay of the moments.
        eps: added to the root of the second moment.
        weight_decay: see above.

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
    ) -> None:
        settings: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        try:
            super().__init__(params, fused=True, **settings)
        except ValueError as error:
            raise PacelineError(f"AdamW cannot work with {settings}: {error}.") from error


def example() -> dict[str, float]:
    """Settings for problems of a few numbers."""
    return {"lr": 0.05, "weight_decay": 0.0}
