"""What a parameter asks of the optimizer."""

from typing import TypeVar

Parameter = TypeVar("Parameter")


def hint(parameter: Parameter, **options: float) -> Parameter:
    """Mark a `torch.nn.Parameter` for the training loop, e.g. `hint(p, weight_decay=0.0, lr_scale=0.1)`; returns it."""
    parameter.hints = options  # type: ignore[attr-defined]
    return parameter
