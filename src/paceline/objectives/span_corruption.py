"""Span corruption (T5): some spans of the text are hidden behind sentinels, and asked for afterwards.

    [mode]  plain tokens, a sentinel for each span  END  sentinel 0, span 0, sentinel 1, span 1, ...  END

Of t tokens, round(t rate) are hidden in round(t rate / span) spans. Departures from T5: a decoder reads what T5's
encoder and decoder read, one after the other; and any token may be hidden, the first too, while a span need not end the
text, which T5's `random_roll` is for. n = t + 2 spans + 1, and one more for the mode.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.objectives._contract import Example, Objective
from paceline.objectives._spans import counts, draw_spans, fill, hide

PAPERS = (
    Source(
        title="Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
        arxiv="1910.10683",
        year=2019,
        says="hiding 15 % of the tokens in spans of 3 on average pretrains well",
    ),
)


class SpanCorruption(Objective):
    """Hides spans of the text.

    Args:
        vocab_size: tokens of the text, v.
        rate: share of the tokens that are hidden.
        span: mean tokens of a span.
        sentinels: spans that a window can hide at most.
        mode: token that tells of the kind of hiding: `R`, `S`, `X`, or empty for none.

    Raises:
        PacelineError: a setting out of its range.
    """

    def __init__(
        self, vocab_size: int = 256, rate: float = 0.15, span: float = 3.0, sentinels: int = 100, mode: str = ""
    ) -> None:
        super().__init__(vocab_size, sentinels)
        if not (0 < rate < 1 and span >= 1 and sentinels >= 1):
            raise PacelineError(f"Spans of {span} tokens cannot hide {rate} of a text behind {sentinels} sentinels.")
        self.rate, self.span = rate, span
        self.first = self.mode(mode) if mode else None

    def length(self, window: int) -> int:
        """See `Objective.length`."""
        if window < 2:
            raise PacelineError(f"A window of {window} tokens cannot both show and hide some: give at least 2.")
        _, spans = counts(window, self.rate, self.span)
        if spans > self.sentinels:
            raise PacelineError(
                f"A window of {window} tokens hides {spans} spans behind {self.sentinels} sentinels: give more of "
                "them, longer spans or shorter windows."
            )
        return window + 2 * spans + 1 + (self.first is not None)

    def apply(self, windows: Int[Tensor, "b t"], generator: torch.Generator) -> Example:
        """See `Objective.apply`."""
        batch, window = windows.shape
        self.length(window)
        hidden = draw_spans(batch, window, *counts(window, self.rate, self.span), generator)
        return hide(self, windows, hidden, self.first)

    def restore(self, example: Example) -> Int[Tensor, "b t"]:
        """See `Objective.restore`."""
        return torch.stack([fill(self, row) for row in example.sequence])


def example() -> SpanCorruption:
    """For text of five tokens."""
    return SpanCorruption(5, rate=0.4, span=2.0, sentinels=16)
