"""CoLoR-Filter: keep the documents on which tuning on the target lowers the loss most.

    score(x) = L(x; prior) - L(x; conditional),    L = mean of -log p(x_t | x_<t) over the tokens, in nats

where the prior model was trained on text like the pool, and the conditional model is the prior, tuned on a sample of
the target. By Bayes' rule this is, per token, log p(x | target) - log p(x): what a document tells of the target, not
how easy it is. Of every tau documents the best one is kept (`fraction` = 1 / tau).

Cost: one forward pass of each of the two small models over the pool; nothing is learnt while the pool is read, so it
splits over any number of machines. Larger models then train on what is kept.

Departure: the authors score sequences of one length, where the mean and the sum of the losses rank alike. Documents of
several lengths are ranked by the mean, as their code takes it, so that long ones are not kept for being long.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.card import Paper
from paceline.data._selection import Losses, Selector

PAPERS = (
    Paper(
        title="CoLoR-Filter: Conditional Loss Reduction Filtering for Targeted Language Model Pre-training",
        arxiv="2406.10670",
        year=2024,
        says="trained on what two small models select, a larger one reaches the target loss of randomly selected text "
        "with many times fewer tokens, and the more so the more aggressively they select",
    ),
)


class ColorFilter(Selector):
    """Selects by conditional loss reduction."""

    def score(self, losses: Losses) -> Float[Tensor, " n"]:
        """Nats per token that tuning on the target takes off each document's loss."""
        return losses.prior - losses.conditional


def naive_color_filter(selector: Selector, losses: Losses, fraction: float) -> list[int]:
    """The same by Python's own sorting, one number at a time."""
    reduction = [a - b for a, b in zip(losses.prior.tolist(), losses.conditional.tolist(), strict=True)]
    ranked = sorted(range(len(reduction)), key=lambda place: (-reduction[place], place))
    return sorted(ranked[: max(1, round(fraction * len(ranked) - 0.5 + 1e-6))])


def example() -> tuple[ColorFilter, Losses]:
    """A pool of three documents: far from the target, near it, and easy in any case."""
    return ColorFilter(), Losses(torch.tensor([2.0, 2.5, 0.5]), torch.tensor([2.6, 1.5, 0.5]))
