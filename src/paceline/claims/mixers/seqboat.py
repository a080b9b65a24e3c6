"""SeqBoat against the hybrid that attends in chunks: is choosing tokens a better use of attention?

The same EMA and gated attention unit four times: on chosen tokens (SeqBoat), on every token in fixed chunks, on random
tokens of the same number (the sham), and plain attention without an EMA. Working memory and chunk hold 32 tokens each.
Recall has distances of 17 to 39 tokens, so that most questions lie beyond the border of the chunk that was told.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from paceline.claims._contract import Bar, Budget, Design
from paceline.core.tolerances import close
from paceline.data._corpus import default_documents, prepare
from paceline.data.recall import Recall
from paceline.data.text import Text
from paceline.lm.decoder import Decoder
from paceline.mixers.seqboat import SeqBoat, example
from paceline.race.contestant import Event, Model

CLAIM = (
    "At equal parameters and tokens SeqBoat beats the same EMA and attention unit with attention in fixed chunks: on "
    "recall across chunks by more than 0.05 of accuracy; on text it comes within 0.02 bits per byte of it for at least "
    "a tenth less compute, and it beats full attention there."
)
METHOD, CHUNKS, FULL = "seqboat(memory=32)", "chunk_hybrid(chunk=32)", "attention"
SHAM = f"{METHOD}, random_tokens"


class Shuffled(nn.Module):
    """A configurator whose gates go to random tokens of the same sequence: the same number, the same values."""

    def __init__(self, configurator: nn.Module) -> None:
        super().__init__()
        self.configurator = configurator

    @property
    def logits(self) -> nn.Module:
        """What the decision costs."""
        return self.configurator.logits  # type: ignore[return-value]

    def forward(self, h: Tensor) -> Tensor:
        """(b, t, d) -> gates (b, t)."""
        gates: Tensor = self.configurator(h)
        return gates.gather(1, torch.rand(gates.shape, device=gates.device).argsort(dim=1))


def random_tokens(model: Decoder) -> None:
    """The sham: SeqBoat's layers activate as many tokens as they choose to, but not those."""
    for mixer in model.mixers:
        assert isinstance(mixer, SeqBoat) and mixer.configurator is not None
        mixer.configurator = Shuffled(mixer.configurator)  # type: ignore[assignment]


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    place = corpora / "default"
    if not (place / "corpus.json").is_file():
        prepare(default_documents(), place)
    recall, text = Recall(), Text(place)
    if budget == "smoke":
        recall.items = text.items = 8
    events = {
        "smoke": [Event(recall, 1_280, 10_000, 16), Event(text, 1_024, 40_000, 2)],
        "cpu": [Event(recall, 307_200, 30_000, 16), Event(text, 98_304, 200_000, 2)],
        "gpu": [Event(recall, 30_720_000, 30_000, 64), Event(text, 98_304_000, 2_000_000, 32)],
    }[budget]
    rates = (5e-3,) if budget == "smoke" else (2e-3, 5e-3, 1.2e-2)
    return Design(
        contestants=[
            Model(METHOD, rates=rates),
            Model(CHUNKS, rates=rates),
            Model(FULL, rates=rates),
            Model(METHOD, rates=rates, change=random_tokens),
        ],
        events=events,
        seeds=2 if budget == "smoke" else 8,
        bars=[
            Bar("recall", METHOD, CHUNKS, by=0.05, equal=0.05),
            Bar("text", METHOD, CHUNKS, by=-0.02),
            Bar("text", METHOD, CHUNKS, by=0.1, measure="flops"),
            Bar("text", METHOD, FULL),
        ],
        shams=[Bar("recall", METHOD, SHAM), Bar("text", METHOD, SHAM)],
        meter="activated",
        limits="Two layers, at most 0.2 million parameters and minutes of training: activation that would pay only "
        "after more training, or over longer texts, does not show.",
    )


def faithful() -> None:
    """The layer equals the formulas taken token by token, at an odd length, in every form."""
    torch.manual_seed(0)
    for part, naive in example():
        part = part.double()
        x = torch.randn(2, 29, part.d_model, dtype=torch.float64)
        assert close(part(x), naive(part, x), x.dtype)  # type: ignore[operator]
