"""Tasks that measure a given model: each seed draws its own, nothing is trained, and there are no gates to show."""

from typing import NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.data._contract import Task


class Untrained(Task):
    """A task of a claim's own, asked for by seed through methods of its own."""

    def sample(self, size: int, generator: torch.Generator) -> NoReturn:
        """Nothing is trained."""
        raise NotImplementedError

    def evaluation(self) -> NoReturn:
        """Each seed has data of its own."""
        raise NotImplementedError

    def show(self, ids: Int[Tensor, " t"]) -> NoReturn:
        """There are no gates here."""
        raise NotImplementedError

    def score(self, logits: Float[Tensor, "b t v"], targets: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """What is measured is not scored from logits."""
        raise NotImplementedError
