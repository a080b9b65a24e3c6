"""y = x W' for few rows x and weights of 4 bits, on processors, at the rate at which the codes are read from memory."""

import importlib
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from paceline.compress._rows import kernels


@cache
def _loops() -> Any:
    """The compiled loops; `_rows.can` has said that there are such."""
    return importlib.import_module("paceline.compress._nibbles_numba")


def few_rows_of_nibbles(
    x: Float[Tensor, "r i"], packed: UInt8[Tensor, "o j"], scale: Float[Tensor, " o"]
) -> Float[Tensor, "r o"]:
    """The product; `_rows.can(x)` must hold, and i = 2 j."""
    rows, threads = len(x), torch.get_num_threads()
    kernels().use_threads(threads)
    if rows > 1 and rows % 4:
        x = torch.cat((x, x.new_zeros(4 - rows % 4, x.shape[1])))
    out = x.new_empty(len(x), len(packed))
    kernel = _loops().one if rows == 1 else _loops().four
    x = x.detach().contiguous()
    kernel(x.numpy(), x.sum(1).numpy(), packed.numpy(), scale.contiguous().numpy(), out.numpy())
    return out[:rows]
