"""What convolutions in chunks share: the kernel's matrix, and a gradient that fast products can take."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


class Dense(torch.autograd.Function):
    """The identity, with a contiguous gradient: bmm takes strided batches one by one, ten times slower."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        """x."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        """The gradient, laid out anew."""
        return gradient.contiguous()


def toeplitz(kernel: Float[Tensor, "d c"]) -> Float[Tensor, "d c c"]:
    """T[d, i, j] = kernel[d, i - j] for j <= i, else 0, by laying shifted rows end to end (a fast backward pass)."""
    width, chunk = kernel.shape
    first, others = kernel[:, :1], kernel[:, 1:]
    row = torch.cat((functional.pad(first, (0, chunk)), others.flip(-1)), dim=1)  # k_0 0 .. 0 k_{c-1} .. k_1
    laid = row.unsqueeze(1).expand(-1, chunk, -1).reshape(width, -1)[:, : chunk * (2 * chunk - 1)]
    return laid.unflatten(1, (chunk, 2 * chunk - 1))[..., :chunk]
