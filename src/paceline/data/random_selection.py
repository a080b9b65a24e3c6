"""Random selection: keep documents by lot, whatever they hold. What a selector must be better than."""

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.card import Source
from paceline.core.seeds import derive
from paceline.data._selection import Losses, Selector

PAPERS = (
    Source(
        title="On the Two Different Aspects of the Representative Method: The Method of Stratified Sampling and the "
        "Method of Purposive Selection",
        year=1934,
        says="a sample drawn by lot stands for the whole; one that is chosen on purpose need not",
    ),
)


class RandomSelection(Selector):
    """Selects by lot.

    Args:
        seed: of the lots. Another one keeps other documents.
    """

    reads_losses = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, losses: Losses) -> Float[Tensor, " n"]:
        """A lot for each document, in [0, 1)."""
        draws = torch.Generator().manual_seed(derive(self.seed, "selection"))
        return torch.rand(len(losses.prior), generator=draws, dtype=torch.float64)


def example() -> tuple[RandomSelection, Losses]:
    """A pool of three documents."""
    return RandomSelection(), Losses(torch.tensor([2.0, 2.5, 0.5]), torch.tensor([2.6, 1.5, 0.5]))
