"""A set of beams: the likeliest continuations so far, each a row of one state.

Every step takes the likeliest of all rows' next tokens. One that ends with a stop token, or at the limit, is finished
if it is among the `width` likeliest; `width` others go on. The search ends when the best that goes on scores no better
than the worst of `width` finished ones, both by length as it is now: the rule of transformers' beam search.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.decode._contract import Run


@dataclass(frozen=True)
class Hypothesis:
    """A finished continuation."""

    tokens: tuple[int, ...]
    log_probability: float
    """The model's own."""
    score: float
    """What the search ranked it by: penalties included, over length ** length_penalty."""


class Beams:
    """Beams over the same prompt.

    Args:
        run: whose prompt was read.
        width: beams.
        length_penalty: scores are divided by length ** this; above 0 favours long texts.
    """

    def __init__(self, run: Run, width: int, length_penalty: float) -> None:
        self._run, self.width, self.length_penalty = run, width, length_penalty
        self._state, self._logits = run.state, run.logits.unsqueeze(0)
        self.texts: list[list[int]] = [[]]  # of the beams that go on, best first
        self._own, self._total = [0.0], torch.zeros(1, dtype=torch.float64)
        self.finished: list[Hypothesis] = []
        self._next: tuple[list[int], list[int]] = ([], [])
        self.length = 0

    @property
    def open(self) -> bool:
        """Whether it may still find better ones."""
        if not self.texts or self.length >= self._run.room:
            return False
        best = float(self._total[0]) / max(self.length, 1) ** self.length_penalty
        return len(self.finished) < self.width or best > self.finished[-1].score

    def choose(self, penalty: Float[Tensor, "#b v"] | None = None) -> list[int]:
        """Take a step: the tokens of its `width` likeliest continuations.

        Args:
            penalty: taken from the log-probability of each next token of each beam.
        """
        self._read()
        says = self._logits.double().log_softmax(-1)
        total = self._total.unsqueeze(1) + (says if penalty is None else says - penalty)
        ends, self.length = self._run.stop, self.length + 1
        likely = total.flatten().topk(min(total.numel(), (max(len(ends), 1) + 1) * self.width))
        rows: list[int] = []
        tokens: list[int] = []
        chosen: list[int] = []
        texts: list[list[int]] = []
        own: list[float] = []
        totals: list[float] = []
        for rank, (value, place) in enumerate(zip(likely.values.tolist(), likely.indices.tolist(), strict=True)):
            row, token = divmod(place, total.shape[1])
            if value == -math.inf:
                break
            text, log_p = [*self.texts[row], token], self._own[row] + float(says[row, token])
            if rank < self.width:
                chosen.append(token)
            if token in ends or self.length == self._run.room:
                if rank < self.width:
                    self._finish(Hypothesis(tuple(text), log_p, value / self.length**self.length_penalty))
            elif len(rows) < self.width:
                rows.append(row)
                tokens.append(token)
                texts.append(text)
                own.append(log_p)
                totals.append(value)
        self.texts, self._own, self._total = texts, own, torch.tensor(totals, dtype=torch.float64)
        self._next = rows, tokens
        return chosen

    def _read(self) -> None:
        """What the last step chose, now that there is another."""
        rows, tokens = self._next
        if tokens:
            state = self._state.select(torch.tensor(rows))
            logits, self._state = self._run.forward(torch.tensor(tokens).unsqueeze(1), state)
            self._logits = logits[:, -1]
            self._run.counts.state_bytes = max(self._run.counts.state_bytes, self._state.nbytes)

    def _finish(self, hypothesis: Hypothesis) -> None:
        self.finished = ranked([*self.finished, hypothesis])[: self.width]


def ranked(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """The best score first."""
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)
