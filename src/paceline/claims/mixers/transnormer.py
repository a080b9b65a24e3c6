"""TransNormerLLM's mixer on text: do decaying positions, a linear gate and a simple norm make linear attention win?

As in the paper the decay fades with depth and the first layer alone has LRPE. Against softmax attention, against
lightning attention (the ablation: neither LRPE nor a schedule over layers, a sigmoid gate), and against itself with
rates of decay drawn anew at every step (the sham).
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._reference import equals_naive, outputs, sine_waves
from paceline.claims._text import rates, text_event
from paceline.core.tolerances import close
from paceline.lm.decoder import Decoder
from paceline.mixers.transnormer import TransNormer, example
from paceline.race.contestant import Model

CLAIM = (
    "At equal parameters and tokens TransNormerLLM's mixer is ahead of softmax attention on text by more than 0.05 "
    "bits per byte, and ahead of lightning attention, which lacks its positions and its schedule of decay."
)
DOUBLE = torch.float64
METHOD, SHAM, FULL, ABLATION = "transnormer, by_depth", "transnormer, random_rates", "attention", "lightning"


class Restless(TransNormer):
    """The sham's layer: rates between the slowest and the fastest of its own, drawn anew at every call."""

    @property
    def rate(self) -> Float[Tensor, " heads"]:
        """Log-uniform."""
        own = super().rate.log()
        return (own.min() + (own.max() - own.min()) * torch.rand_like(own)).exp()


def by_depth(model: Decoder) -> None:
    """The paper's layers: the decay fades from the first to the last, and only the first has positions."""
    for index, mixer in enumerate(model.mixers):
        assert isinstance(mixer, TransNormer)
        mixer.depth = index / max(1, len(model.mixers) - 1)
        if index:
            mixer.theta = None


def random_rates(model: Decoder) -> None:
    """The sham: the same weights and positions, with a decay that means nothing."""
    by_depth(model)
    for layer in model.stack:
        assert isinstance(layer.mixer, TransNormer)
        own = layer.mixer
        restless = Restless(own.d_model, own.heads, own.depth, positions=own.theta is not None)
        restless.load_state_dict(own.state_dict())
        layer.mixer = restless


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    searched = rates(budget)
    return Design(
        contestants=[
            Model("transnormer", rates=searched, change=by_depth),
            Model(FULL, rates=searched),
            Model(ABLATION, rates=searched),
            Model("transnormer", rates=searched, change=random_rates),
        ],
        events=[text_event(budget, corpora)],
        seeds=2 if budget == "smoke" else 8,
        bars=[Bar("text", METHOD, FULL, by=0.05, equal=0.05), Bar("text", METHOD, ABLATION, equal=0.02)],
        shams=[Bar("text", METHOD, SHAM)],
        meter="recalled",
        limits="Two layers, 0.2 million parameters, windows of 256 bytes: neither the paper's scale nor its lengths, "
        "and so little training that a bias towards what is near may be all that counts.",
    )


AUTHORS = {
    True: (
        -0.6544033715549313, -0.501267767620888, -1.1753966968688871, -0.24640602976314763, -0.143518646947222,
        -1.0346062430950402, -0.40302719635494977, -0.07094869060741643, -0.06794847062622217, 0.03313506260266877,
        0.16627419391066223, 0.8547948876626812, -0.35894226695185794, 0.3211988213886315, -0.6487034386709405,
        -0.16154224659215247, -1.0974948355250769,
    ),
    False: (
        -0.6544033715549313, -0.5086527633311266, -1.1682683159056113, -0.24312416048224528, -0.15104965149888805,
        -0.993208156965921, -0.43972429066102797, -0.21170595165483141, -0.36211556185493704, 0.056836701400376666,
        0.008606871930163296, -0.8961014268159051, -0.4052201580925773, -0.6179845219549321, -0.6679008350815717,
        -0.2775521252047958, -0.8998006333980351,
    ),
}  # fmt: skip
"""What the authors' `NormLinearAttention` (modeling_transnormer.py of TransNormerLLM, without Triton) gives in float64
with the weights and inputs of `like_the_authors`, with LRPE or not: a number for each of 17 tokens, the second layer
of three, its norm as in their `SimpleRMSNorm`."""


def faithful() -> bool:
    """Whether the layer equals its authors' and the recurrence, and stays finite where lambda^-t does not."""
    same = [close(like_the_authors(lrpe), torch.tensor(AUTHORS[lrpe], dtype=DOUBLE), DOUBLE) for lrpe in AUTHORS]
    same.append(equals_naive(example(), 150))
    steep = TransNormer(8, heads=2)
    tokens = 2 * math.ceil(math.log(torch.finfo(torch.float32).max) / steep.rate.max().item())
    with torch.no_grad():
        same.append(bool(steep(torch.randn(1, tokens, 8)).isfinite().all()))
    return all(same)


@torch.no_grad()
def like_the_authors(positions: bool) -> Tensor:
    """The outputs (17,) of a layer and an input that are sine waves, so that no generator need be repeated."""
    layer = TransNormer(8, heads=2, depth=0.5, positions=positions).double()
    sine_waves(layer)
    return outputs(layer, 17)
