"""SOAP against AdamW on a byte model: a lower loss in as many steps, and the same loss in fewer?

Both train the same model of two layers on the same 200 batches of 4,096 bytes, at the best of seven learning rates that
each searches alike; both forget at the same speed (0.9 and 0.98). As in the paper, whose vocabularies are longer than
any side that is turned, the embedding is turned on the side of the features alone (but in the budget `gpu`, where bytes
are fewer than other sides). In the sham the bases of the same sides are drawn at random, once: Adam in axes that mean
nothing.

The paper saves over 40 % of the steps at batches of two million tokens, less at smaller ones. Pilots on other seeds, at
a rate of 0.03, in bits per byte: AdamW 2.85 (seed 1001) and 2.86 (1002), SOAP 2.69 on the first in as many steps,
2.87 and 2.80 in four fifths of them, 3.02 and 3.05 in three fifths; at 0.06 AdamW 3.06, SOAP 2.67, 2.83 and 2.98, all
on the first. So four fifths is what the bar asks for. With the authors' decays of 0.95 for both moments AdamW had 3.23,
and SOAP, at a rate of 0.01, 3.11 where it has 2.97 with these (seed 1000).
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from paceline.claims._contract import Bar, Budget, Design
from paceline.core.tolerances import close
from paceline.data._corpus import default_corpus
from paceline.data.text import Text
from paceline.lm.train import Recipe
from paceline.optim._contract import Parameters
from paceline.optim.soap import SOAP
from paceline.race.contestant import Event, Model

CLAIM = (
    "On text, at equal steps and rates searched alike, SOAP is more than 0.05 bits per byte ahead of AdamW, and still "
    "ahead with four fifths of AdamW's steps."
)
METHOD, RIVAL, FEWER, SHAM = "soap", "adamw", "soap, four fifths of the steps", "soap, random bases"
SEEDS = range(20, 30)
"""A first run, on seeds 0 to 9, searched 0.01, 0.02, 0.04 and 0.08 and held by 0.25 and 0.10. AdamW took 0.02 and came
to 2.95, where pilots at 0.03 had 2.86: so the second, on 10 to 19, searched more finely, for all, and held by as much.
In both the longest side was 200, which left the feed-forwards' first matrices, of 202, turned on one side only, a third
of the weights; and the sham turned the bytes' side too. These are the third's, with that mended, bars unchanged."""
SHARE = 0.8
LONGEST = 255
"""Below the 256 bytes of the vocabulary, above the models' other sides, of up to 202."""


class Random(SOAP):
    """The sham: bases that no gradient has formed, drawn for each matrix and seed."""

    longest: ClassVar[int] = LONGEST

    def __init__(self, params: Parameters, lr: float = 3e-3, weight_decay: float = 0.1) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, every=2**30, largest=self.longest)

    def direction(self, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor | None:
        """See `SOAP.direction`."""
        move = super().direction(grad, state, group)
        if move is None:  # the first gradient, which makes the bases
            for name in ("basis_0", "basis_1"):
                if name in state:
                    state[name] = torch.linalg.qr(torch.randn(state[name].shape)).Q
        return move


class RandomOnAllSides(Random):
    """The same for the budget `gpu`."""

    longest = 10_000


class Fewer(Model):
    """The same with four fifths of the steps, at the end of which its rate has fallen as far."""

    def _recipe(self, event: Event, rate: float) -> Recipe:
        return Recipe(int(SHARE * event.tokens), event.batch, lr=rate, optimizer=self.optimizer)


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    smoke = budget == "smoke"
    rates = (2e-2,) if smoke else (1e-2, 1.5e-2, 2e-2, 3e-2, 4e-2, 6e-2, 8e-2)
    tokens, parameters, batch = {
        "smoke": (2_560, 40_000, 4),
        "cpu": (819_200, 60_000, 32),
        "gpu": (1_638_400_000, 20_000_000, 4_096),
    }[budget]
    text = Text(default_corpus(corpora), 128)
    if smoke:
        text.items = 8
    soap = METHOD if budget == "gpu" else f"soap(largest={LONGEST})"
    return Design(
        contestants=[
            Model("attention", rates=rates, optimizer=soap, name=METHOD),
            Model("attention", rates=rates, name=RIVAL),
            Fewer("attention", rates=rates, optimizer=soap, name=FEWER),
            Model("attention", rates=rates, optimizer=RandomOnAllSides if budget == "gpu" else Random, name=SHAM),
        ],
        events=[Event(text, tokens, parameters, batch)],
        seeds=2 if smoke else SEEDS,
        bars=[Bar("text", METHOD, RIVAL, by=0.05), Bar("text", FEWER, RIVAL)],
        shams=[Bar("text", METHOD, SHAM)],
        meter="turned",
        limits="A model of 0.06 million parameters and 200 steps of 4,096 bytes; the paper's have 360 and 660 million "
        "and batches of two million tokens, where it saves over 40 % of the steps. Shampoo, which it also beats there, "
        "is not here. Seconds are not compared: of a model so small the optimizer's step is a large part.",
    )


AUTHORS = (
    -0.26595832489854343, 0.7136929382486137, 0.8543276343996489, 0.4730257497184315, -0.9971343321625599,
    -0.68569810526653, -0.6029088028549613, 0.1254906386680732, 0.7633239525759827, 0.25923782626728087,
    -0.6842705581356046, -1.1497632535513276,
)  # fmt: skip
"""What the authors' code (github.com/nikhilvyas/SOAP, a1e5535, its casts to float32 lifted) gives in float64."""


def faithful() -> bool:
    """Whether twelve steps end where the authors' do: a matrix of sine waves, gradients that are sine waves too."""
    numbers = torch.arange(12, dtype=torch.float64)
    weight = torch.nn.Parameter(numbers.sin().view(3, 4))
    optimizer = SOAP([weight], lr=0.1, betas=(0.95, 0.95), weight_decay=0.0, every=3)
    for step in range(13):  # the first only makes the bases
        weight.grad = (numbers**2 * (0.3 + 0.1 * step) + step).sin().view(3, 4)
        optimizer.step()
    return close(weight.detach().flatten(), torch.tensor(AUTHORS, dtype=torch.float64), torch.float64)
