"""What the claims about flows carry: eight Gaussians to moons, and loudness curves of spoken words to those of others.

moons      as the authors' code draws them: eight Gaussians on a circle of radius 5, each of variance sqrt(0.1), and
           two moons with noise 0.2, three times as large and moved by -1
loudness   root mean square of a second of speech in 20 parts, ten words by espeak-ng in many voices; the square
           root of it, standardised over all; the first five words are carried to the other five
"""

import math
from abc import abstractmethod
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from paceline.core.seeds import derive
from paceline.data._speech import Recipe, speech
from paceline.data._untrained import Untrained
from paceline.data.keywords import HELDOUT, TRAIN, WORDS
from paceline.lm.field import MixerField

PARTS = 20
"""Parts of a second of speech."""
STEPS = 2_000
"""Samples of it."""
HALF = len(WORDS) // 2


class Carried(Untrained):
    """One distribution to be carried to another. The score is taken after `few` Euler steps.

    Args:
        steps: of training.
        batch: points in each.
        items: points that are generated and compared.
    """

    metric = "2-Wasserstein distance"
    better = "lower"
    floor = None
    ceiling = None
    vocab_size = 0
    length = 1
    few: ClassVar[int]

    def __init__(self, steps: int, batch: int, items: int) -> None:
        self.steps, self.batch_size, self.items = steps, batch, items

    @abstractmethod
    def start(self, size: int, generator: torch.Generator) -> Tensor:
        """Points of the first distribution."""

    @abstractmethod
    def target(self, size: int, generator: torch.Generator) -> Tensor:
        """Points of the second, to learn from."""

    @abstractmethod
    def unseen(self, size: int, generator: torch.Generator) -> Tensor:
        """Points of the second, to compare with."""

    @abstractmethod
    def field(self, seed: int) -> nn.Module:
        """An untrained field."""


class Moons(Carried):
    """Eight Gaussians to two moons."""

    name = "moons"
    title = "Eight Gaussians to moons"
    few = 4

    def start(self, size: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """On a circle of radius 5."""
        turn = torch.randint(8, (size,), generator=generator) * (math.pi / 4)
        return 5 * torch.stack((turn.cos(), turn.sin()), 1) + 0.1**0.25 * torch.randn(size, 2, generator=generator)

    def target(self, size: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """Half circles that hold each other."""
        turn, lower = torch.rand(size, generator=generator) * math.pi, torch.rand(size, generator=generator) < 0.5
        across = torch.where(lower, 1 - turn.cos(), turn.cos())
        up = torch.where(lower, 0.5 - turn.sin(), turn.sin())
        return 3 * (torch.stack((across, up), 1) + 0.2 * torch.randn(size, 2, generator=generator)) - 1

    def unseen(self, size: int, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """Fresh ones."""
        return self.target(size, generator)

    def field(self, seed: int) -> nn.Module:
        """The authors' perceptron."""
        torch.manual_seed(derive(seed, "field"))
        return Perceptron()

    def describe(self) -> str:
        """See `Task.describe`."""
        return "Carry eight Gaussians on a circle to two moons in the plane, in 4 Euler steps."


class Loudness(Carried):
    """Loudness curves of some spoken words to those of others.

    Args:
        steps: of training.
        batch: points in each.
        items: points that are generated and compared.
        speakers: voices that are trained on; a quarter as many others are compared with.
    """

    name = "loudness"
    title = "Loudness of spoken words"
    length = PARTS
    few = 1

    def __init__(self, steps: int, batch: int, items: int, speakers: int = 32) -> None:
        super().__init__(steps, batch, items)
        self.recipe = Recipe(WORDS, TRAIN[:speakers], HELDOUT[: speakers // 4], 4, STEPS)

    def start(self, size: int, generator: torch.Generator) -> Float[Tensor, "n 20 1"]:
        """The first five words, by the voices to learn from."""
        return _some(_curves(self.recipe)[0][:, :HALF], size, generator)

    def target(self, size: int, generator: torch.Generator) -> Float[Tensor, "n 20 1"]:
        """The other five."""
        return _some(_curves(self.recipe)[0][:, HALF:], size, generator)

    def unseen(self, size: int, generator: torch.Generator) -> Float[Tensor, "n 20 1"]:
        """The other five words, by other voices."""
        return _some(_curves(self.recipe)[1][:, HALF:], size, generator)

    def field(self, seed: int) -> nn.Module:
        """Two layers of attention."""
        torch.manual_seed(derive(seed, "field"))
        return MixerField(1, PARTS, ("attention", "attention"), 48)

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Carry the loudness of five spoken words, in {PARTS} parts of a second, to five others in one Euler step."
        )


class Perceptron(nn.Module):
    """Three layers of 64, as in the authors' example."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 64), nn.SELU(), nn.Linear(64, 64), nn.SELU(), nn.Linear(64, 64), nn.SELU(), nn.Linear(64, 2)
        )

    def forward(self, x: Float[Tensor, "b 2"], t: Float[Tensor, " b"]) -> Float[Tensor, "b 2"]:
        """Velocities."""
        out: Tensor = self.layers(torch.cat((x, t[:, None]), 1))
        return out


def _some(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Of points (takes, words, parts)."""
    flat = points.flatten(0, 1)
    chosen: Int[Tensor, " n"] = torch.randint(len(flat), (size,), generator=generator)
    return flat[chosen].unsqueeze(2)


@cache
def _curves(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Of the voices to learn from and of the others, in units of the former's mean and spread, over all parts."""
    found = []
    spoken = speech(recipe)
    for clips in (spoken.train, spoken.heldout):
        level = clips.reshape(-1, len(WORDS), PARTS, STEPS // PARTS).astype(np.float32) / 127.5 - 1
        wave = np.sign(level) * ((256.0 ** np.abs(level)) - 1) / 255
        found.append(torch.from_numpy(np.sqrt(np.sqrt((wave**2).mean(3)))).float())
    mean, spread = found[0].mean(), found[0].std()
    return (found[0] - mean) / spread, (found[1] - mean) / spread
