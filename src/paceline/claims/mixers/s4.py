"""S4 on long delays: does the HiPPO matrix keep what lies far back?

32 symbols are told one after the other and then asked for in their order, so each answer lies exactly 32 tokens back:
a convolution with one long delay does it, a state whose memory only fades does not. S4, the same layer with A drawn at
random (normal plus low rank, of LegS's size: the sham), and the exponential moving average as the plain recurrence.
On text, where no delay matters more than the others, only the two state matrices are compared.
"""

from pathlib import Path

import torch
from torch import Tensor

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._reference import equals_naive, outputs, sine_waves
from paceline.claims._text import rates
from paceline.core.tolerances import close
from paceline.data._corpus import default_corpus
from paceline.data.selective_copy import SelectiveCopy
from paceline.data.text import Text
from paceline.lm.decoder import Decoder
from paceline.mixers.s4 import NPLR, S4, example
from paceline.race.contestant import Event, Model

CLAIM = (
    "At equal parameters and tokens S4 repeats symbols from 32 tokens back with an accuracy more than 0.1 above a "
    "plain recurrence (an exponential moving average) and more than 0.05 above itself with a random state matrix."
)
SEEDS = range(8, 40)
"""A first run, on seeds 0 to 7, decided the bars (FAILS: a random matrix is 0.136 ahead on the delay) and left open
whether HiPPO's matrix does anything on text: 0.027 ahead of a random one (-0.006 to 0.061). These are the second's,
fixed before it with nothing else changed."""
DOUBLE = torch.float64
METHOD, PLAIN = "s4", "ema"
SHAM = f"{METHOD}, random_matrix"


@torch.no_grad()
def random_matrix(model: Decoder) -> None:
    """The sham: Lambda's frequencies, P and B drawn at random, with the root mean squares that LegS has."""
    for mixer in model.mixers:
        assert isinstance(mixer, S4) and isinstance(mixer.ssm, NPLR)
        for parameter in (mixer.ssm.frequency, mixer.ssm.p, mixer.ssm.b):
            drawn = torch.randn_like(parameter)
            parameter.copy_(drawn * (parameter.square().mean() / drawn.square().mean()).sqrt())


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    far, text = SelectiveCopy(count=32, stretch=32, symbols=8), Text(default_corpus(corpora))
    if budget == "smoke":
        far.items = text.items = 4
    events = {
        "smoke": [Event(far, 128, 30_000, 2), Event(text, 256, 40_000, 1)],
        "cpu": [Event(far, 204_800, 30_000, 16), Event(text, 49_152, 50_000, 2)],
        "gpu": [
            Event(SelectiveCopy(count=256, stretch=256), 51_200_000, 200_000, 64),
            Event(text, 49_152_000, 2_000_000, 32),
        ],
    }[budget]
    searched = rates(budget)
    return Design(
        contestants=[
            Model(METHOD, rates=searched),
            Model(PLAIN, rates=searched),
            Model(METHOD, rates=searched, change=random_matrix),
        ],
        events=events,
        seeds=2 if budget == "smoke" else SEEDS,
        bars=[
            Bar("selective_copy", METHOD, PLAIN, by=0.1, equal=0.1),
            Bar("selective_copy", METHOD, SHAM, by=0.05, equal=0.05),
        ],
        shams=[Bar("selective_copy", METHOD, SHAM), Bar("text", METHOD, SHAM)],
        meter="distant",
        limits="Two layers, at most 50,000 parameters, 256 tokens a sequence, 200 steps: the paper's benchmarks have "
        "up to 16,384 tokens, and train for many epochs.",
    )


AUTHORS = (
    0.13607423975604477, 0.24453020297696776, 0.30165988960001033, 0.3364105348829305, -0.31431739620155397,
    1.1094890979971828, 0.7989631812016311, 0.053778333082817154, -0.5839127138362339, -0.5897126130830136,
    -0.22922166283158346, -0.025326617019133246, 0.23554626084742877, 0.12766161057766945, -0.5533605792681935,
    0.19977933739314407, 1.167658710702934, 0.7242363454448218, 0.2274056761666493,
)  # fmt: skip
"""What the authors' standalone layer (github.com/state-spaces/s4, models/s4/s4.py, `S4Block` with a kernel as long as
the input) gives in float64 with the weights and inputs of `like_the_authors`: a number for each of 19 tokens."""


def faithful() -> bool:
    """Whether the layer equals its authors' and the recurrence with dense matrices, beyond a chunk."""
    same = close(like_the_authors(), torch.tensor(AUTHORS, dtype=DOUBLE), DOUBLE)
    return same and equals_naive(example(), 150)


@torch.no_grad()
def like_the_authors() -> Tensor:
    """The outputs (19,) of a layer and an input that are sine waves."""
    layer = S4(8, d_state=6).double()
    sine_waves(layer)
    return outputs(layer, 19)
