"""Continuing excerpts of real text, and what it costs in readings of the model's weights.

    tokens per pass = tokens made after the first / (calls of the model after the prompt + w / W x calls of a helper)

where a helper has w parameters and the model W: decoding one sequence is bound by reading weights, so that a call with
several tokens, a tree of guesses for instance, costs what a call with one does. Greedy decoding has 1. Cells run side
by side, so nothing is timed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch

from paceline.claims._pretrained import TINY
from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.core.state import LM
from paceline.data._corpus import open_corpus
from paceline.data._untrained import Untrained
from paceline.decode._contract import PIECE, Counts, Strategy
from paceline.decode._generate import generate
from paceline.lm.pretrained import pretrained
from paceline.race.contestant import Job, Outcome, Report

BYTES = "bytes"
"""In place of a pretrained model: whatever reads bytes."""
SPAN = 16
"""Bytes that surely hold a token."""
NEWLINE = 10


@dataclass(frozen=True)
class Excerpt:
    """A text cut in two, as tokens."""

    prompt: list[int]
    truth: list[int]
    """What follows it."""


class Continuing(Untrained):
    """Continue excerpts that begin with a line; a seed draws them.

    Args:
        folder: where `data._corpus.prepare` wrote the corpus.
        model: whose tokens; see `lm.pretrained`, or `TINY` or `BYTES`.
        prompt: tokens of a prompt.
        tokens: to be made after each.
        items: how many excerpts a seed draws.
        side: of the corpus.
        one_document: the excerpts of a seed are from one document, which it draws too.

    Raises:
        PacelineError: fewer than 1 token in a prompt or 2 to be made, or no excerpt.
    """

    name = "continuing"
    title = "Continuing text"
    metric = "tokens per pass"
    better = "higher"
    floor: float | None = 1.0  # greedy decoding
    ceiling: float | None = None
    vocab_size = 0

    def __init__(
        self, folder: Path, model: str, prompt: int, tokens: int, items: int,
        side: Literal["train", "heldout"] = "heldout", one_document: bool = False,
    ) -> None:  # fmt: skip
        if prompt < 1 or tokens < 2 or items < 1:
            raise PacelineError(f"Nothing to continue: {items} prompts of {prompt} tokens, {tokens} to be made.")
        self.folder, self.model, self.side, self.one_document = folder, model, side, one_document
        self.prompted, self.length, self.items = prompt, tokens, items

    def drawn(self, seed: int) -> list[Excerpt]:
        """The excerpts of a seed, in the order in which they are continued.

        Raises:
            PacelineError: the text is too short.
        """
        draws = torch.Generator().manual_seed(derive(seed, "excerpts"))
        text: np.ndarray = getattr(open_corpus(self.folder), self.side)
        if self.one_document:
            text = self._document(text, draws)
        return [self._excerpt(text, draws) for _ in range(self.items)]

    def describe(self) -> str:
        """See `Task.describe`."""
        source = "one document" if self.one_document else "documents"
        digest = open_corpus(self.folder).digest[:8]
        return (
            f"Continue {self.items} excerpts of {self.prompted} tokens of {self.model} by {self.length} "
            f"({self.side} side, {source} a seed, digest {digest})."
        )

    @property
    def _span(self) -> int:
        return SPAN * (self.prompted + self.length)

    def _document(self, text: np.ndarray, draws: torch.Generator) -> np.ndarray:
        """One that has room for four excerpts at least."""
        ends = [*np.flatnonzero(text == 0).tolist(), len(text)]
        starts = [0, *(end + 1 for end in ends[:-1])]
        known = [(start, end) for start, end in zip(starts, ends, strict=True) if end - start >= 4 * self._span]
        if not known:
            raise PacelineError(f"No document has {4 * self._span:,} bytes: ask for shorter excerpts.")
        start, end = known[int(torch.randint(len(known), (), generator=draws))]
        return text[start:end]

    def _excerpt(self, text: np.ndarray, draws: torch.Generator) -> Excerpt:
        start = int(torch.randint(max(len(text) - self._span, 1), (), generator=draws))
        lines = np.flatnonzero(text[max(start - 1, 0) : start + self._span // 2] == NEWLINE)
        start += int(lines[0]) if len(lines) else 0
        ids = to_tokens(self.model, bytes(text[start : start + self._span]).decode(errors="ignore"))
        if len(ids) < self.prompted + self.length:
            raise PacelineError(f"The text is too short for {self.prompted} and {self.length} tokens: give more.")
        return Excerpt(ids[: self.prompted], ids[self.prompted : self.prompted + self.length])


@dataclass(frozen=True)
class Continued:
    """An excerpt and what was made of it."""

    excerpt: Excerpt
    made: list[int]
    how: Strategy
    """As the text left it."""
    counts: Counts
    passes: float
    """Readings of the weights after the prompt's."""


def continued(
    job: Job, lm: LM, make: Callable[[], Strategy], report: Report, share: float = 0.0, first: int | None = None
) -> list[Continued]:
    """Every excerpt of the cell's seed continued in turn.

    Args:
        job: on `Continuing`.
        lm: the model.
        make: the strategy for the next excerpt; the same one again where it learns from all.
        report: hears of progress.
        share: of the model's weights that a helper's call reads, w / W.
        first: continue so many excerpts only. Default: all.
    """
    task = job.event.task
    assert isinstance(task, Continuing)
    found = []
    for number, excerpt in enumerate(task.drawn(job.seed)[:first]):
        how = make()
        stream = generate(lm, excerpt.prompt, how, task.length, seed=derive(job.seed, "draws", number))
        made, counts = stream.all(), stream.counts
        passes = counts.calls - -(-task.prompted // PIECE) + share * counts.helper_calls
        found.append(Continued(excerpt, made, how, counts, passes))
        report(number + 1, task.items, per_pass(found))
    return found


def per_pass(texts: Sequence[Continued]) -> float:
    """Tokens made after the first, for each reading of the weights."""
    return sum(len(text.made) - 1 for text in texts) / sum(text.passes for text in texts)


@torch.no_grad()
def same_as_greedy(lm: LM, texts: Sequence[Continued]) -> float:
    """Share of the texts of which every token is the likeliest after those before it, read at once."""
    same = []
    for text in texts:
        prompt, made = text.excerpt.prompt, torch.tensor(text.made)
        logits, _ = lm(torch.tensor([[*prompt, *text.made[:-1]]]), None)
        same.append(float(torch.equal(logits[0, len(prompt) - 1 :].argmax(-1), made)))
    return fmean(same)


def outcome(
    items: list[float], texts: Sequence[Continued], meters: dict[str, float], parameters: int, began: float
) -> Outcome:
    """What is told of a cell: the items, and the bill of all texts.

    Args:
        items: the score is their mean.
        texts: what was made.
        meters: what the method did.
        parameters: of the model.
        began: by `time.monotonic`.
    """
    counts = [text.counts for text in texts]
    bill = Ledger(
        sum(count.read for count in counts), 0.0, time.monotonic() - began,
        sum(count.calls + count.helper_calls for count in counts), parameters,
        max(count.state_bytes for count in counts),
    )  # fmt: skip
    return Outcome(items, [], bill, meters)


def to_tokens(model: str, text: str) -> list[int]:
    """The text's tokens for this model."""
    return list(text.encode()) if model in (TINY, BYTES) else list(_tokenizer(model)(text).input_ids)


def to_text(model: str, ids: Sequence[int]) -> str:
    """The tokens' text."""
    if model in (TINY, BYTES):
        return bytes(ids).decode("latin1")
    return str(_tokenizer(model).decode(list(ids), clean_up_tokenization_spaces=False))


@cache
def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pretrained(name))
