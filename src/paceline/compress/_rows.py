"""y = x W' for few rows x, on processors, at the rate at which W is read from memory."""

import importlib
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FEW = 12
"""Rows up to which the compiled loops are faster than a general product."""


@cache
def kernels() -> Any:
    """The compiled loops, or None where numba or its threads are not there."""
    threads = torch.get_num_threads()
    try:
        found = importlib.import_module("paceline.core.step_numba")
        for weights in (torch.ones(2, 8), torch.ones(2, 8, dtype=torch.int8)):  # compiles, and finds a threading layer
            found.product(torch.ones(1, 8).numpy(), weights.numpy(), torch.ones(2).numpy(), torch.ones(1, 2).numpy())
    except (ImportError, ValueError):
        return None
    finally:
        torch.set_num_threads(threads)  # numba's first parallel loop tells OpenMP, which torch asks, to take all
    return found


def can(x: Float[Tensor, "r i"]) -> bool:
    """Whether `few_rows` takes these."""
    return (
        0 < len(x) <= FEW
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not (torch.is_grad_enabled() and x.requires_grad)
        and kernels() is not None
    )


def few_rows(x: Float[Tensor, "r i"], weights: Tensor, scales: Float[Tensor, " o"]) -> Float[Tensor, "r o"]:
    """The product, each output times its scale; `can(x)` must hold.

    Args:
        x: at most FEW rows.
        weights: (o, i), float32 or int8, contiguous.
        scales: of each output.
    """
    loops, rows = kernels(), len(x)
    loops.use_threads(torch.get_num_threads())
    if rows > 1 and rows % 4:
        x = torch.cat((x, x.new_zeros(4 - rows % 4, x.shape[1])))
    out = x.new_empty(len(x), len(weights))
    loops.product(x.detach().contiguous().numpy(), weights.numpy(), scales.numpy(), out.numpy())
    return out[:rows]
