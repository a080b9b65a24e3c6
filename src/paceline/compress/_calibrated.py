"""What ways to few bits share that look at text first."""

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.compress._low import LowBits
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.core.state import LM

BYTES = 256
"""Tokens of a model that reads bytes."""
SPAN = 16
"""Bytes that surely hold a token."""


class Calibrated(LowBits):
    """Few bits, chosen by what the model does with calibration text.

    Args:
        weights: see `LowBits`, as the next four.
        activations: of what a map reads.
        cache: of keys and values.
        group: inputs that share a scale.
        clip: shrinkages that are tried.
        texts: how many are read.
        length: tokens of each.
        seed: all chance follows from it.
        ids: the texts themselves, (n, t). Default: excerpts of Python's documentation, by the model's tokenizer
            (`lm.tokenizer`), or as bytes for a model of 256 tokens.

    Raises:
        PacelineError: as `LowBits`, or there is nothing to read.
    """

    def __init__(
        self, weights: int, activations: int, cache: int, group: int, clip: int,
        texts: int, length: int, seed: int, ids: Tensor | None,
    ) -> None:  # fmt: skip
        super().__init__(weights, activations, cache, group, clip)
        if texts < 1 or length < 2:
            raise PacelineError(f"{type(self).__name__}: {texts} texts of {length} tokens are too little to read.")
        self.texts, self.length, self.seed, self.ids = texts, length, seed, ids

    def calibration(self, lm: LM) -> Int[Tensor, "n t"]:
        """The texts to read.

        Raises:
            PacelineError: none were given, and the model has no tokenizer.
        """
        if self.ids is not None:
            return self.ids
        tokenizer = getattr(lm, "tokenizer", None)
        if tokenizer is None and lm.vocab_size != BYTES:
            raise PacelineError(f"{type(lm).__name__} has no tokenizer for calibration text: give ids of your own.")
        text, draws = documentation(), torch.Generator().manual_seed(derive(self.seed, "calibration"))
        span = SPAN * self.length
        starts = torch.randint(len(text) - span, (self.texts,), generator=draws).tolist()
        rows = []
        for start in starts:
            piece = text[start : start + span]
            ids = list(piece) if tokenizer is None else tokenizer(piece.decode(errors="ignore")).input_ids
            rows.append(ids[: self.length])
        return torch.tensor(rows)


def documentation() -> bytes:
    """Python's own, which every Python brings.

    Raises:
        PacelineError: this one came without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise PacelineError("This Python came without pydoc_data: give calibration ids of your own.") from error
    return "\n".join(text for _, text in sorted(topics.items())).encode()
