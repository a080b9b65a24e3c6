"""The contract of the family: a task makes training batches from a seed, and measures on a fixed set of items."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from paceline.core.seeds import derive

IGNORE = -100
"""Target of a position where nothing is asked."""


@dataclass(frozen=True)
class Batch:
    """Sequences, and what should follow each of their tokens."""

    ids: Int[Tensor, "b t"]
    targets: Int[Tensor, "b t"]
    """The token to predict at each position, or IGNORE."""


class Task(ABC):
    """A source of sequences with a measure. Subclasses are final, and cheap to pickle."""

    name: ClassVar[str]
    title: ClassVar[str]
    metric: ClassVar[str]
    better: ClassVar[Literal["lower", "higher"]]
    items: int = 256
    """How many sequences the measure is taken on."""

    vocab_size: int
    length: int
    """Tokens of a sequence."""
    prompt: int = 0
    """How many of its first tokens tell something before anything is asked: a model may read them as a whole."""
    one_answer: ClassVar[bool] = False
    """True where one thing is asked, at the last token: a classification, which an encoder can learn too."""

    @abstractmethod
    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """`size` training sequences, a function of the generator's state alone."""

    @abstractmethod
    def evaluation(self) -> Batch:
        """The sequences to measure on: always the same, none of them trained on but by chance."""

    @abstractmethod
    def describe(self) -> str:
        """What is asked, in one sentence."""

    @property
    @abstractmethod
    def floor(self) -> float | None:
        """The score of a model that knows nothing."""

    @property
    @abstractmethod
    def ceiling(self) -> float | None:
        """The best possible score, where it is known."""

    @abstractmethod
    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Each token as a reader would like to see it."""

    def batch(self, size: int, seed: int, step: int) -> Batch:
        """Training batch number `step`: the same for every contestant, whatever was drawn before."""
        return self.sample(size, torch.Generator().manual_seed(derive(seed, "batch", step)))

    def score(self, logits: Float[Tensor, "b t v"], targets: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """The metric of each sequence: share of right answers, or bits per asked token."""
        asked = targets != IGNORE
        if self.better == "higher":
            return ((logits.argmax(-1) == targets) & asked).sum(1) / asked.sum(1)
        losses = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        return losses.view_as(targets).sum(1) / asked.sum(1) / math.log(2)

    @property
    def loss_unit(self) -> str:
        """Unit of the learning curves."""
        return self.metric if self.better == "lower" else "nats per answer"

    def in_loss_unit(self, nats: float) -> float:
        """A training loss as the learning curves show it."""
        return nats / math.log(2) if self.better == "lower" else nats


class Generated(Task):
    """A task that makes its sequences itself, measured by the share of right answers."""

    metric = "accuracy"
    better = "higher"

    def evaluation(self) -> Batch:
        """From a generator that no training seed derives."""
        return self.sample(self.items, torch.Generator().manual_seed(derive(0, "evaluation", self.name)))

    @property
    def ceiling(self) -> float:
        """Every answer follows from the sequence."""
        return 1.0
