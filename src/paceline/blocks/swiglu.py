"""SwiGLU feed-forward: `y = W_2 (SiLU(W_g x) * W_1 x)`, hidden width h.

Time O(b t d h), no state. No biases, as in the paper.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Source

PAPERS = (Source(title="GLU Variants Improve Transformer", arxiv="2002.05202", year=2020),)


class SwiGLU(nn.Module):
    """Gated feed-forward from width d to hidden and back."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.d_model, self.hidden = d_model, hidden
        self.inner = nn.Linear(d_model, 2 * hidden, bias=False)
        self.outer = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Each token on its own; same shape."""
        gate, value = self.inner(x).chunk(2, dim=-1)
        return self.outer(functional.silu(gate) * value)

    def flops(self, batch: int, length: int) -> int:
        """Forward multiply-adds x 2 of the three matrix products."""
        return 6 * batch * length * self.d_model * self.hidden


def example() -> SwiGLU:
    """The smallest instance for the contract tests."""
    return SwiGLU(8, 12)
