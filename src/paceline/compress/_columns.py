"""GPTQ's rounding: a column at a time, each error made good by the columns that are not rounded yet.

    H = 2 X'X / n + lambda mean(diag) I,   U'U = H^-1,   U upper triangular
    for each input j:   e = (w_j - round(w_j)) / U_jj,   w_k -= e U_jk for k >= j

In blocks, so that most of it is matrix products. An input that is always 0 has weight 0.
"""

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from paceline.compress._grid import rounded

BLOCK = 32
DAMP = 0.01


def hessian(x: Float[Tensor, "n i"]) -> Float[Tensor, "i i"]:
    """Of the squared error of an output, for inputs x."""
    return 2 / len(x) * x.T @ x


def by_columns(
    w: Float[Tensor, "o i"], h: Float[Tensor, "i i"], scale: Float[Tensor, "o g"], bits: int
) -> Int8[Tensor, "o i"]:
    """The codes of weights, whose scales are given."""
    columns, h = w.T.clone(), h.double()  # (i, o): a column is contiguous
    dead = h.diagonal() == 0
    h = h + torch.diag(dead.to(h))
    columns[dead] = 0
    h = h + torch.diag((DAMP * h.diagonal().mean()).expand(len(h)))
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True).to(w)
    scales = scale.T.repeat_interleave(len(columns) // scale.shape[1], dim=0)
    codes = torch.empty_like(columns)
    for start in range(0, len(columns), BLOCK):
        part, u = columns[start : start + BLOCK], upper[start : start + BLOCK, start : start + BLOCK]
        errors = torch.empty_like(part)
        for j in range(len(part)):
            codes[start + j] = rounded(part[j], scales[start + j], bits)
            errors[j] = (part[j] - codes[start + j] * scales[start + j]) / u[j, j]
            part[j + 1 :].addr_(u[j, j + 1 :], errors[j], alpha=-1)
        columns[start + BLOCK :] -= upper[start : start + BLOCK, start + BLOCK :].T @ errors
    return codes.T.contiguous().to(torch.int8)
