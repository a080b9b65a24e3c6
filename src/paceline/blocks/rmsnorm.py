"""RMSNorm: `y = x / sqrt(mean(x^2) + eps) * g`, over the last axis.

Invariant to the scale of x (up to eps). Time O(b t d), no state. `torch.nn.RMSNorm` does the work.
"""

from jaxtyping import Float
from torch import Tensor, nn

from paceline.core.card import Source

PAPERS = (Source(title="Root Mean Square Layer Normalization", arxiv="1910.07467", year=2019),)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned gain g in R^d, initialised to 1."""

    def __init__(self, d_model: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(d_model, eps=eps)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Same shape; each row has root mean square 1 before the gain."""
        return self.norm(x)


def example() -> RMSNorm:
    """The smallest instance for the contract tests."""
    return RMSNorm(8)
