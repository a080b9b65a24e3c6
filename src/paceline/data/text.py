"""Text as bytes: predict the next byte of files that were not trained on, in bits per byte.

Bits per byte compare across tokenizers. Training draws windows of `length` + 1 bytes at random; the measure is taken
on windows spread evenly over the held-out files, each from an empty past.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.data._contract import Batch, Task
from paceline.data._corpus import Corpus, open_corpus

PAPERS = (Source(title="Prediction and Entropy of Printed English", year=1951, says="bits per letter of real text"),)


class Text(Task):
    """Next-byte prediction on a prepared corpus.

    Args:
        folder: where `data._corpus.prepare` wrote the corpus.
        length: bytes that the model reads, t.

    Raises:
        PacelineError: the corpus is missing, changed, or too short for one window, or the length is below 1.
    """

    name = "text"
    title = "Real text"
    metric = "bits per byte"
    better = "lower"
    items = 128
    vocab_size = 256
    floor = 8.0  # every byte equally likely
    ceiling = None

    def __init__(self, folder: str | Path, length: int = 256) -> None:
        if length < 1:
            raise PacelineError(f"text: a window of length={length} reads nothing; give at least 1.")
        self.folder, self.length = Path(folder), length
        self._corpus: Corpus | None = None
        for side, array in (("train", self.corpus.train), ("held-out", self.corpus.heldout)):
            if len(array) <= length:
                raise PacelineError(
                    f"The {side} text has {len(array):,} bytes, too few for one window of {length + 1}: "
                    "give more text, or a smaller length."
                )

    @property
    def corpus(self) -> Corpus:
        """The bytes, opened when first needed."""
        if self._corpus is None:
            self._corpus = open_corpus(self.folder)
        return self._corpus

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_corpus": None}  # a memory map is opened anew in the other process

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Windows that begin anywhere in the training bytes."""
        starts = torch.randint(len(self.corpus.train) - self.length, (size,), generator=generator)
        return self._windows(self.corpus.train, starts.numpy())

    def evaluation(self) -> Batch:
        """Windows spread evenly over the held-out bytes, without overlap where there is room."""
        room = len(self.corpus.heldout) - self.length - 1
        count = min(self.items, max(1, room // self.length + 1))
        return self._windows(self.corpus.heldout, np.linspace(0, room, count).astype(np.int64))

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Predict the next byte of files that were not trained on, in windows of {self.length} bytes "
            f"({len(self.corpus.train):,} bytes to train on, {len(self.corpus.heldout):,} held out; "
            f"digest {self.corpus.digest[:8]})."
        )

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """A character at the first of its bytes; the others are empty strings; broken ones are marked one by one."""
        data = bytes(ids.tolist())
        shown: list[str] = []
        while len(shown) < len(data):
            place = len(shown)
            size = 1 + sum(data[place] >= lead for lead in (0xC0, 0xE0, 0xF0))  # of the character that begins here
            try:
                shown += [data[place : place + size].decode(), *[""] * (size - 1)]
            except UnicodeDecodeError:
                shown.append("\ufffd")
        return shown

    def _windows(self, data: np.ndarray, starts: np.ndarray) -> Batch:
        rows = np.stack([data[start : start + self.length + 1] for start in starts]).astype(np.int64)
        windows = torch.from_numpy(rows)
        return Batch(windows[:, :-1], windows[:, 1:])
