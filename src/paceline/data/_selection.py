"""Selectors: which documents of a pool to train on, for the sake of a target.

A selector sees what two language models lose on each document, and scores it; the documents of the highest scores are
kept, in their order. Whoever keeps a share of documents of one length keeps that share of the tokens.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.state import LM

SLACK = 1e-9
"""0.29 of 100 is 29: what rounding takes from a share is given back."""


@dataclass(frozen=True)
class Losses:
    """Mean loss of each document under two models, in nats per token.

    Raises:
        PacelineError: they are not of the same documents, there are none, or one is not a number.
    """

    prior: Float[Tensor, " n"]
    """Of the model of the pool."""
    conditional: Float[Tensor, " m"]
    """Of the same model, tuned on the target, m = n."""

    def __post_init__(self) -> None:
        if self.prior.shape != self.conditional.shape:
            shapes = f"{len(self.prior)} documents under the prior, {len(self.conditional)} under the other"
            raise PacelineError(f"Both models must have read the same documents: there are {shapes}.")
        if not len(self.prior):
            raise PacelineError("There is no document to select from: give a pool of text.")
        if not bool(self.prior.isfinite().all() and self.conditional.isfinite().all()):
            raise PacelineError("The loss of a document is no finite number: look at the models, or leave it out.")


class Selector(ABC):
    """Scores documents by their losses; the highest are kept."""

    reads_losses: ClassVar[bool] = True
    """False where the losses' number alone matters, so that none need be taken."""

    @abstractmethod
    def score(self, losses: Losses) -> Float[Tensor, " n"]:
        """How much each document is wanted. A function of the losses and of the selector's own seed alone."""

    @final
    def select(self, losses: Losses, fraction: float) -> Int[Tensor, " k"]:
        """The kept documents' places in the pool, in its order.

        Args:
            losses: of every document.
            fraction: share of the documents to keep, rounded down, but one at least. Of two alike the earlier stays.

        Raises:
            PacelineError: the share is not between 0 and 1.
        """
        if not 0 < fraction <= 1:
            raise PacelineError(f"A share of {fraction} of the documents cannot be kept: give one above 0, up to 1.")
        scores = self.score(losses)
        count = max(1, math.floor(fraction * len(scores) + SLACK))
        return scores.argsort(descending=True, stable=True)[:count].sort().values


@torch.no_grad()
def losses_of(
    lm: LM, documents: Sequence[Int[Tensor, " _"]], length: int = 256, batch: int = 32
) -> Float[Tensor, " n"]:
    """Mean loss of each document, in nats per token that is predicted, in float64.

    A document is read in windows of `length` tokens that do not know of each other, so long ones cost no more a token
    than short ones; the first token of a document is given. Padding follows what is asked, so it changes nothing.

    Args:
        lm: a causal language model.
        documents: n of them, each as its tokens (t,), two at least.
        length: tokens that are read at once.
        batch: windows that are read side by side.

    Raises:
        PacelineError: a document of fewer than two tokens, or windows or batches of none.
    """
    if length < 1 or batch < 1:
        raise PacelineError(f"Nothing is read in batches of {batch} windows of {length}: give at least 1 of each.")
    windows: list[tuple[int, Tensor]] = []
    for number, ids in enumerate(documents):
        if len(ids) < 2:
            raise PacelineError(f"Document {number} has {len(ids)} tokens: leave out those of fewer than 2.")
        windows += [(number, ids[start : start + length + 1]) for start in range(0, len(ids) - 1, length)]
    windows.sort(key=lambda window: len(window[1]))  # stable: neighbours of one length need no padding
    totals, counts = torch.zeros(2, len(documents), dtype=torch.float64)
    for start in range(0, len(windows), batch):
        numbers, pieces = zip(*windows[start : start + batch], strict=True)
        rows = torch.nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)
        asked = torch.arange(rows.shape[1]) < torch.tensor([len(piece) for piece in pieces]).unsqueeze(1)
        logits, _ = lm(rows[:, :-1], None)
        exact = logits if logits.dtype == torch.float64 else logits.float()
        nats = functional.cross_entropy(exact.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        nats = nats.view(len(rows), -1).double() * asked[:, 1:]
        totals.index_add_(0, torch.tensor(numbers), nats.sum(1))
        counts.index_add_(0, torch.tensor(numbers), asked[:, 1:].sum(1).double())
    return totals / counts
