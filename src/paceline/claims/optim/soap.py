"""SOAP against AdamW: does Adam in Shampoo's basis need fewer steps, and bear a basis that is seldom refreshed?

One model, full attention on text, trained by each optimizer under the same schedule, over its own course: SOAP with six
tenths of the steps, so a lower loss is a lead of more than four tenths, which the paper promises ("over 40% fewer
iterations"). Learning rates are searched for each alike; moments decay as each one's authors have it. The sham turns
gradients into random bases that it never refreshes. Muon has no bar: the paper does not know it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._text import rates
from paceline.core.tolerances import close
from paceline.data._corpus import default_corpus
from paceline.data.text import Text
from paceline.lm.train import Recipe
from paceline.optim.soap import SOAP
from paceline.race.contestant import Event, Model

CLAIM = (
    "On text SOAP reaches a lower loss than AdamW with six tenths of AdamW's steps, and with as many it is ahead by "
    "more than 0.02 bits per byte even if its basis is refreshed only every 100 steps."
)
SHARE = 0.6
METHOD, SELDOM, ADAMW, MUON = f"soap, {SHARE} of the steps", "soap, every 100 steps", "adamw", "muon"
SHAM = f"random bases, {SHARE} of the steps"
MIXER = "attention"


class RandomBases(SOAP):
    """The sham: bases drawn when a matrix is first seen, never refreshed."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, every=10**9)

    def direction(self, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor | None:
        """See `SOAP.direction`."""
        first = "exp_avg" not in state
        move = super().direction(grad, state, group)
        if first:
            for name in [name for name in state if name.startswith("basis")]:
                state[name] = torch.linalg.qr(torch.randn_like(state[name])).Q
        return move


class Shorter(Model):
    """Over a share of the steps, its own schedule included."""

    def _recipe(self, event: Event, rate: float) -> Recipe:
        return Recipe(int(SHARE * event.tokens), batch=event.batch, lr=rate, optimizer=self.optimizer)


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    text, searched = Text(default_corpus(corpora)), rates(budget)
    if budget == "smoke":
        text.items = 8
    event = {
        "smoke": Event(text, 4_096, 40_000, 2),
        "cpu": Event(text, 262_144, 200_000, 4),
        "gpu": Event(text, 262_144_000, 2_000_000, 64),
    }[budget]
    return Design(
        contestants=[
            Shorter(MIXER, rates=searched, optimizer="soap", name=METHOD),
            Model(MIXER, rates=searched, name=ADAMW),
            Model(MIXER, rates=searched, optimizer="soap(every=100)", name=SELDOM),
            Model(MIXER, rates=searched, optimizer="muon", name=MUON),
            Shorter(MIXER, rates=searched, optimizer=RandomBases, name=SHAM),
        ],
        events=[event],
        seeds=2 if budget == "smoke" else 8,
        bars=[Bar("text", METHOD, ADAMW), Bar("text", SELDOM, ADAMW, by=0.02)],
        shams=[Bar("text", METHOD, SHAM)],
        meter="turned",
        limits="Two layers, 0.2 million parameters, 256 steps of 1,024 bytes: the paper's models are a thousand times "
        "larger and its batches two thousand times. Shampoo itself is not among the rivals.",
    )


AUTHORS = (
    -0.26595832489854343, 0.7136929382486137, 0.8543276343996489, 0.4730257497184315, -0.9971343321625599,
    -0.68569810526653, -0.6029088028549613, 0.1254906386680732, 0.7633239525759827, 0.25923782626728087,
    -0.6842705581356046, -1.1497632535513276,
)  # fmt: skip
"""What the authors' code (github.com/nikhilvyas/SOAP, a1e5535, its casts to float32 lifted) gives in float64."""


def faithful() -> bool:
    """Whether twelve steps end where the authors' do."""
    return close(like_the_authors(), torch.tensor(AUTHORS, dtype=torch.float64), torch.float64)


def like_the_authors() -> Tensor:
    """Where a matrix (3, 4) of sine waves is after twelve gradients, sine waves too, with a refresh every 3."""
    p = torch.nn.Parameter(torch.arange(12, dtype=torch.float64).sin().view(3, 4))
    optimizer = SOAP([p], lr=0.1, weight_decay=0.0, every=3)
    for step in range(13):
        p.grad = (torch.arange(12, dtype=torch.float64) ** 2 * (0.3 + 0.1 * step) + step).sin().view(3, 4)
        optimizer.step()
    return p.detach().flatten()
