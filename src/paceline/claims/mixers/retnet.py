"""RetNet against attention: is a memory of fixed size, fading at several rates, enough to model text?

Retention, full attention, and retention that forgets nothing (the sham): without the decay all heads are alike. The
paper finds retention ahead of attention above two thousand million parameters; at this scale its promise is to stay
close, for a state that does not grow with the text.
"""

from pathlib import Path

import torch
from torch import Tensor

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._reference import equals_naive, outputs, sine_waves
from paceline.claims._text import rates, text_event
from paceline.core.tolerances import close
from paceline.lm.decoder import Decoder
from paceline.mixers.retnet import RetNet, example
from paceline.race.contestant import Model

CLAIM = (
    "At equal parameters and tokens RetNet comes within 0.02 bits per byte of full attention on text, from a state of "
    "at most half the bytes."
)
DOUBLE = torch.float64
METHOD, FULL = "retnet", "attention"
SHAM = f"{METHOD}, without_decay"


def without_decay(model: Decoder) -> None:
    """The sham: every head remembers everything equally well, gamma = 1."""
    for mixer in model.mixers:
        assert isinstance(mixer, RetNet)
        mixer.lost = [0.0] * mixer.heads


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    searched = rates(budget)
    return Design(
        contestants=[
            Model(METHOD, rates=searched),
            Model(FULL, rates=searched),
            Model(METHOD, rates=searched, change=without_decay),
        ],
        events=[text_event(budget, corpora)],
        seeds=2 if budget == "smoke" else 8,
        bars=[
            Bar("text", METHOD, FULL, by=-0.02),
            Bar("text", METHOD, FULL, by=0.5, measure="state_bytes"),
        ],
        shams=[Bar("text", METHOD, SHAM)],
        meter="recalled",
        limits="Two layers, at most 0.2 million parameters and minutes of training: the paper's lead over attention "
        "begins four orders of magnitude above that.",
    )


AUTHORS = (
    0.16883157542064203, -10.959284606842461, 0.4718367022120093, 0.2118090991386881, -6.447368916282334,
    -0.2063417369435249, -0.5134949844003496, -1.0355235565705088, -0.046551737018781535, -5.04468990388053,
    -0.2786660166793098, 0.1902741331931784, 1.8755545354033607, -0.689586203430391, 0.47014723074780884,
    -0.37303140074360264, 0.799011451638168,
)  # fmt: skip
"""What the authors' recurrent form (github.com/microsoft/torchscale, 4d1e0e8) gives in float64, its casts lifted, with
the weights and inputs of `like_the_authors`: a number for each of 17 tokens."""


def faithful() -> bool:
    """Whether the part equals its authors' and, over several chunks, the parallel form of the paper."""
    same = close(like_the_authors(), torch.tensor(AUTHORS, dtype=DOUBLE), DOUBLE)
    return same and equals_naive(example(), 150)


@torch.no_grad()
def like_the_authors() -> Tensor:
    """The outputs (17,) of a part and an input that are sine waves, so that no generator need be repeated."""
    part = RetNet(8, heads=2).double()
    sine_waves(part)
    return outputs(part, 17)
