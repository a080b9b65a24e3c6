"""UL2's mixture of denoisers: every sequence is denoised in one of seven ways, and a mode token says of which kind.

    [R]  spans of 3 and of 8 tokens, 15 % hidden                          regular: knowledge, understanding
    [X]  spans of 3 and of 8, 50 % hidden; of 64, 15 % and 50 % hidden    extreme: writing much from little
    [S]  a prefix, the rest hidden                                        sequential: going on with a text

Sequences of R and X are those of `span_corruption`, of S those of `prefix_lm`; the shorter ones are padded with END to
the longest. The kinds' shares are 0.4, 0.4 and 0.2, and the denoisers of one kind are equally likely: the paper finds
about a fifth of S best. Whoever uses the model begins with the mode that suits the task: `gap` builds what asks to fill
a gap, with [R] or [X], and a text to go on with begins with [S].

Departures: see `span_corruption`; the paper's span lengths count pieces of words, so that for bytes `scale` = 4 makes
them about as long; modes are tokens of their own, not the strings [NLU], [NLG] and [S2S] of the authors' checkpoints.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.objectives._contract import IGNORE, Example, Objective
from paceline.objectives._spans import fill, hide
from paceline.objectives.prefix_lm import PrefixLM
from paceline.objectives.span_corruption import SpanCorruption

PAPERS = (
    Paper(
        title="UL2: Unifying Language Learning Paradigms",
        arxiv="2205.05131",
        year=2022,
        says="one model, pretrained on a mixture of denoisers and told by a mode token which is meant, does well both "
        "where text is to be continued and where it is to be filled in, which no single objective does",
    ),
)
SPANS = (("R", 3, 0.15), ("R", 8, 0.15), ("X", 3, 0.5), ("X", 8, 0.5), ("X", 64, 0.15), ("X", 64, 0.5))
"""Mode, mean tokens of a span, share that is hidden: the paper's table 1."""


class UL2(Objective):
    """A mixture of denoisers.

    Args:
        vocab_size: tokens of the text, v.
        sequential: share of S; R and X have half of the rest each.
        scale: tokens that a piece of a word is made of: what the paper's span lengths are multiplied by.
        sentinels: spans that a window can hide at most.

    Raises:
        PacelineError: a setting out of its range.
    """

    def __init__(
        self, vocab_size: int = 256, sequential: float = 0.2, scale: float = 1.0, sentinels: int = 100
    ) -> None:
        super().__init__(vocab_size, sentinels)
        if not (0 <= sequential <= 1 and scale > 0):
            raise PacelineError(f"UL2 cannot mix a share of {sequential} of S with spans scaled by {scale}.")
        self.sequential, self.scale = sequential, scale
        self.denoisers: list[Objective] = [
            SpanCorruption(vocab_size, rate, max(1.0, scale * span), sentinels, mode) for mode, span, rate in SPANS
        ]
        self.denoisers.append(PrefixLM(vocab_size, mode="S"))
        kinds = [mode for mode, _, _ in SPANS]
        self.shares = [(1 - sequential) / 2 / kinds.count(mode) for mode in kinds] + [sequential]

    def length(self, window: int) -> int:
        """See `Objective.length`: that of the denoiser that needs most."""
        return max(denoiser.length(window) for denoiser in self.denoisers)

    def apply(self, windows: Int[Tensor, "b t"], generator: torch.Generator) -> Example:
        """See `Objective.apply`."""
        batch, n = len(windows), self.length(windows.shape[1])
        drawn = torch.multinomial(torch.tensor(self.shares), batch, replacement=True, generator=generator)
        sequence = torch.full((batch, n + 1), self.end)
        targets = torch.full((batch, n), IGNORE)
        for number, denoiser in enumerate(self.denoisers):
            rows = (drawn == number).nonzero().flatten()
            if len(rows):
                made = denoiser.apply(windows[rows], generator)
                sequence[rows, : made.inputs.shape[1] + 1] = made.sequence
                targets[rows, : made.targets.shape[1]] = made.targets
        return Example(sequence[:, :-1], targets, targets != IGNORE, sequence[:, -1])

    def restore(self, example: Example) -> Int[Tensor, "b t"]:
        """See `Objective.restore`."""
        plain = [row[1:][row[1:] != self.end] for row in example.sequence]
        given = example.sequence[:, 0] == self.mode("S")
        return torch.stack(
            [
                rest if prefix else fill(self, row)
                for rest, prefix, row in zip(plain, given, example.sequence, strict=True)
            ]
        )

    def gap(self, windows: Int[Tensor, "b t"], start: int, stop: int, mode: str = "R") -> Example:
        """Sequences that ask for tokens `start` to `stop` of every window, given those before and after.

        Raises:
            PacelineError: there is no such gap, or no such mode.
        """
        batch, window = windows.shape
        if not 0 <= start < stop <= window or stop - start == window:
            raise PacelineError(f"Tokens {start} to {stop} of {window} are no gap with text beside it.")
        place = torch.arange(window)
        hidden = ((place >= start) & (place < stop)).expand(batch, -1)
        return hide(self, windows, hidden, self.mode(mode))


def example() -> UL2:
    """For text of five tokens."""
    return UL2(5, sentinels=32)
