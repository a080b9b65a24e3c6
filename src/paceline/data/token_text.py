"""Text in a tokenizer's tokens: predict the next token of files that were not trained on, in bits per byte.

For models that must share another model's vocabulary: drafts, experts, rewards. Both sides of a prepared corpus are
tokenised once, document by document with the end token between them, and kept beside it; windows as in `text.py`. Bits
per byte count the bytes of the text that a window asks for, so they compare with models that read bytes.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.files import sha256, write_atomic
from paceline.data._contract import Batch, Task
from paceline.data._corpus import SEPARATOR, open_corpus

PAPERS = (
    Source(
        title="Neural Machine Translation of Rare Words with Subword Units",
        arxiv="1508.07909",
        year=2016,
        says="words as the pieces that byte pair encoding makes of them",
    ),
)
PIECE = 2**16
"""Bytes of a document that are tokenised at a time: a giant one would take its length in memory many times over."""


class TokenText(Task):
    """Next-token prediction on a prepared corpus.

    Args:
        folder: where `data._corpus.prepare` wrote the corpus.
        tokenizer: folder with a `tokenizer.json` of Hugging Face, such as a saved model's.
        length: tokens that the model reads, t.

    Raises:
        PacelineError: no tokenizer there, the corpus is missing or changed, or too short for one window.
    """

    name = "token_text"
    title = "Real text in tokens"
    metric = "bits per byte"
    better = "lower"
    items = 32  # a row of logits is as wide as the vocabulary
    floor = None
    ceiling = None

    def __init__(self, folder: str | Path, tokenizer: str | Path, length: int = 128) -> None:
        if length < 1:
            raise PacelineError(f"token_text: a window of length={length} reads nothing; give at least 1.")
        self.folder, self.tokenizer, self.length = Path(folder), Path(tokenizer), length
        self.vocab_size = vocabulary(self.tokenizer)
        self._tokens: dict[str, np.ndarray] = {}
        for side in ("train", "heldout"):
            if len(self.tokens(side)) <= length:
                raise PacelineError(
                    f"The {side} text has {len(self.tokens(side)):,} tokens, too few for one window of {length + 1}: "
                    "give more text, or a smaller length."
                )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_tokens": {}}  # memory maps are opened anew in the other process

    def tokens(self, side: str) -> np.ndarray:
        """The tokens of `train` or `heldout`, a read-only map; made when first needed."""
        if side not in self._tokens:
            corpus = open_corpus(self.folder)
            name = f"{corpus.digest[:12]}-{sha256(self.tokenizer / 'tokenizer.json')[:12]}-{side}.u32"
            place = self.folder / "tokens" / name
            if not place.is_file():
                place.parent.mkdir(exist_ok=True)
                write_atomic(place, tokenise(bytes(getattr(corpus, side)), self.tokenizer).tobytes())
            self._tokens[side] = np.memmap(place, np.uint32, "r")
        return self._tokens[side]

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Windows that begin anywhere in the training text."""
        starts = torch.randint(len(self.tokens("train")) - self.length, (size,), generator=generator)
        return self._windows("train", starts.numpy())

    def evaluation(self) -> Batch:
        """Windows spread evenly over the held-out text, without overlap where there is room."""
        room = len(self.tokens("heldout")) - self.length - 1
        count = min(self.items, max(1, room // self.length + 1))
        return self._windows("heldout", np.linspace(0, room, count).astype(np.int64))

    def score(self, logits: Float[Tensor, "b t v"], targets: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """Bits per byte of each window."""
        bits = super().score(logits, targets) * targets.shape[1]
        reader = _reader(self.tokenizer)
        sizes = [len(reader.decode(row.tolist(), skip_special_tokens=False).encode()) for row in targets]
        return bits / torch.tensor(sizes, device=bits.device)

    @property
    def loss_unit(self) -> str:
        """See `Task.loss_unit`: the loop knows tokens, not their bytes."""
        return "bits per token"

    def in_loss_unit(self, nats: float) -> float:
        """See `Task.in_loss_unit`."""
        return nats / math.log(2)

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Predict the next token of files that were not trained on, in windows of {self.length} of "
            f"{self.vocab_size:,} tokens ({len(self.tokens('train')):,} to train on, {len(self.tokens('heldout')):,} "
            f"held out; digest {open_corpus(self.folder).digest[:8]})."
        )

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Each token's text."""
        reader = _reader(self.tokenizer)
        return [reader.decode([token], skip_special_tokens=False) for token in ids.tolist()]

    def _windows(self, side: str, starts: np.ndarray) -> Batch:
        data = self.tokens(side)
        rows = np.stack([data[start : start + self.length + 1] for start in starts]).astype(np.int64)
        windows = torch.from_numpy(rows)
        return Batch(windows[:, :-1], windows[:, 1:])


def vocabulary(tokenizer: Path) -> int:
    """How many tokens there are, special ones included.

    Raises:
        PacelineError: no tokenizer in the folder.
    """
    return int(_reader(tokenizer).get_vocab_size(with_added_tokens=True))


def tokenise(text: bytes, tokenizer: Path) -> np.ndarray:
    """The tokens (n,) of documents joined by NUL bytes, uint32; the end token, where there is one, between them.

    Bytes that are no UTF-8 become replacement characters.
    """
    reader, end = _reader(tokenizer), _end(tokenizer)
    pieces: list[list[int]] = []
    for number, document in enumerate(text.split(SEPARATOR)):
        if number and end is not None:
            pieces.append([end])
        cuts = [document[at : at + PIECE].decode(errors="replace") for at in range(0, len(document), PIECE)]
        pieces += [found.ids for found in reader.encode_batch(cuts, add_special_tokens=False)]
    return np.fromiter((token for piece in pieces for token in piece), np.uint32)


@cache
def _reader(folder: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise PacelineError("Text in tokens needs tokenizers: pip install 'paceline[hf]'.") from error
    if not (folder / "tokenizer.json").is_file():
        raise PacelineError(f"{folder} has no tokenizer.json: give the folder of a model that was saved with one.")
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing more specific
        raise PacelineError(f"{folder / 'tokenizer.json'} is broken ({error}): restore it.") from error


def _end(folder: Path) -> int | None:
    """The token that ends a text, as the tokenizer's settings name it."""
    try:
        end = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError):
        return None
    name = end.get("content") if isinstance(end, dict) else end
    found: int | None = _reader(folder).token_to_id(name) if isinstance(name, str) else None
    return found
