"""Aaren against attention: does a query that is learned once, the same for all tokens, do as well as one per token?

Real text, where the paper's "comparable" is put to the test, and the severest event so far, a stream that a shared
query suffices for: there a part must weigh by content, for a plain average loses one event among many. The EMA shows
what a constant state reaches without attention. The sham draws its query anew at every step, as long as the learned.
"""

import math
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._reference import equals_naive
from paceline.claims._text import rates, text_event
from paceline.core.tolerances import close
from paceline.data._contract import Batch, Generated
from paceline.lm.decoder import Decoder
from paceline.mixers.aaren import Aaren, example
from paceline.race.contestant import Event, Model

CLAIM = (
    "At equal parameters and tokens Aaren is on a par with attention: within 0.05 bits per byte on text, and within "
    "0.02 of accuracy in telling the severest event so far; from a state at least nine tenths smaller."
)
DOUBLE = torch.float64
METHOD, FULL, AVERAGE = "aaren", "attention", "ema"
SHAM = f"{METHOD}, random_query"


class Severest(Generated):
    """Events of `levels` severities, each rarer than the one below it by `ratio`: which was the severest so far?"""

    name = "severest"
    title = "Severest event so far"

    def __init__(self, levels: int = 16, length: int = 128, ratio: float = 0.7) -> None:
        self.levels, self.length, self.ratio, self.vocab_size = levels, length, ratio, levels

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Independent events; the answer is asked after each."""
        shares = self.ratio ** torch.arange(self.levels, dtype=torch.float32)
        ids = torch.multinomial(shares, size * self.length, replacement=True, generator=generator)
        ids = ids.view(size, self.length)
        return Batch(ids, ids.cummax(1).values)

    def describe(self) -> str:
        """See `Task.describe`."""
        return f"Say after each of {self.length} events which of {self.levels} severities was the highest so far."

    @property
    def floor(self) -> float:
        """Always the level that is most often the highest so far."""
        shares = self.ratio ** torch.arange(self.levels, dtype=DOUBLE)
        below = (shares / shares.sum()).cumsum(0)  # an event of at most this level
        times = torch.arange(1, self.length + 1).unsqueeze(1)
        reached = below**times - functional.pad(below, (1, 0))[:-1] ** times
        return float(reached.mean(0).max())

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Letters, A the mildest."""
        return [chr(65 + i) for i in ids.tolist()]


class Redrawn(nn.Module):
    """The query's map, with a random direction in place of what it gives, and its length kept."""

    def __init__(self, learned: nn.Module) -> None:
        super().__init__()
        self.learned = learned

    def forward(self, query: Tensor) -> Tensor:
        """(d,) -> (d,)."""
        direction = torch.randn_like(query)
        return direction * (self.learned(query).norm() / direction.norm())


def random_query(model: Decoder) -> None:
    """The sham: attention by a query that means nothing, another one at every step."""
    for mixer in model.mixers:
        assert isinstance(mixer, Aaren)
        mixer.to_query = Redrawn(mixer.to_query)  # type: ignore[assignment]


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    severest = Severest()
    if budget == "smoke":
        severest.items = 8
    event = {
        "smoke": Event(severest, 2_048, 10_000, 8),
        "cpu": Event(severest, 307_200, 30_000, 8),
        "gpu": Event(severest, 30_720_000, 30_000, 64),
    }[budget]
    searched = rates(budget)
    return Design(
        contestants=[
            Model(METHOD, rates=searched),
            Model(FULL, rates=searched),
            Model(AVERAGE, rates=searched),
            Model(METHOD, rates=searched, change=random_query),
        ],
        events=[event, text_event(budget, corpora)],
        seeds=2 if budget == "smoke" else 8,
        bars=[
            Bar("text", METHOD, FULL, by=-0.05, equal=0.05),
            Bar("severest", METHOD, FULL, by=-0.02, equal=0.02),
            Bar("text", METHOD, FULL, by=0.9, measure="state_bytes"),
        ],
        shams=[Bar("severest", METHOD, SHAM), Bar("text", METHOD, SHAM)],
        meter="attended",
        limits="Two layers and minutes of training, on text and one synthetic stream: the paper's own series, events "
        "and games, and models whose many layers could make up for the shared query, are not tried.",
    )


TOKENS = ((2.0, -1.0), (0.0, 0.0), (math.log(3), 1.0))
HAND = (
    (2.0, -1.0),
    (2 * math.e**2 / (math.e**2 + 1), -(math.e**2) / (math.e**2 + 1)),
    ((2 * math.e**2 + 3 * math.log(3)) / (math.e**2 + 4), (3 - math.e**2) / (math.e**2 + 4)),
)
"""Every map the identity, and a query that scores a token by its first number: the weights are e^2, 1 and 3."""


@torch.no_grad()
def faithful() -> bool:
    """Whether it equals the case worked out by hand and, over several chunks, the paper's recurrence."""
    part = Aaren(2, heads=1).double()
    for linear in (part.to_query, part.to_key, part.to_value, part.out):
        linear.weight.copy_(torch.eye(2, dtype=DOUBLE))
    part.query.copy_(torch.tensor((math.sqrt(2), 0.0), dtype=DOUBLE))
    same = close(part(torch.tensor([TOKENS], dtype=DOUBLE))[0], torch.tensor(HAND, dtype=DOUBLE), DOUBLE)
    return same and equals_naive(example(), 131)
