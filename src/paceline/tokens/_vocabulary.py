"""The tokens of a tokenizer as bytes, sorted, so that those that begin alike are one range; and which follow which."""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from paceline.core.errors import PacelineError
from paceline.tokens._contract import Tokenization
from paceline.tokens._pairs import Pairs
from paceline.tokens._words import APART, JOINED, Split, Words

ENDED = -1


class Vocabulary(Tokenization):
    """A BPE of bytes.

    Args:
        pieces: the bytes of each token; None for special ones, which are no text.
        merges: (left, right, both) as tokens, by rank.
        split: the pre-tokenizer. Default: it never splits.
        encoder: text to tokens. Default: the merges.
        prefix: bytes that the tokenizer puts before a text.

    Raises:
        PacelineError: there is no text that these tokens write.
    """

    def __init__(
        self, pieces: Sequence[bytes | None], merges: Sequence[tuple[int, int, int]], split: Split | None = None,
        encoder: Callable[[str], list[int]] | None = None, prefix: bytes = b"",
    ) -> None:  # fmt: skip
        texts = [(piece, token) for token, piece in enumerate(pieces) if piece]
        if not texts:
            raise PacelineError("The tokenizer has no token that is text: give another.")
        self.pieces, self.vocab_size, self.prefix = list(pieces), len(pieces), prefix
        self.sorted = [piece for piece, _ in sorted(texts)]
        self.order = np.array([token for _, token in sorted(texts)])
        self.longest = max(map(len, self.sorted))
        self.columns = np.full((self.longest + 1, len(texts)), ENDED, dtype=np.int16)
        for place, piece in enumerate(self.sorted):
            self.columns[: len(piece), place] = np.frombuffer(piece, dtype=np.uint8)
        self.pairs = Pairs(merges, len(pieces))
        self._words = None if split is None else Words(pieces, split)
        self._encoder = encoder
        made = {both for _, _, both in merges}
        self._leaf = {piece: token for piece, token in reversed(texts) if token not in made}
        self._joined = lru_cache(maxsize=512)(self.pairs.follow)
        self.allowed = lru_cache(maxsize=512)(self._allowed)

    @staticmethod
    def of(tokenizer: Any) -> "Vocabulary":
        """Of a fast tokenizer of transformers: byte-level BPE, or BPE with a fallback to bytes.

        Raises:
            PacelineError: it is another kind, or changes the text before it reads it.
        """
        return _of(tokenizer)

    def children(self, low: int, high: int, depth: int) -> np.ndarray:
        """(258,) places among the sorted tokens: those that end after `depth` bytes, then those that go on by byte."""
        column = self.columns[depth, low:high]
        return low + np.searchsorted(column, np.arange(ENDED, 257))

    def begins(self, data: bytes) -> bool:
        """Whether a token begins with these bytes."""
        place = bisect_left(self.sorted, data)
        return place < len(self.sorted) and self.sorted[place].startswith(data)

    def _allowed(self, before: int, last: int) -> np.ndarray:
        """(sorted tokens,) of bool: what may follow these two; -1 is the beginning."""
        piece = self.pieces[last] if last >= 0 else None
        if piece is None:
            return np.ones(len(self.order), dtype=bool)
        joined = self._joined(last)
        if self._words is None:
            return joined[self.order]
        first = (self.pieces[before] if before >= 0 else None) or b""
        said = self._words.boundary(first, piece, bool(not first or self._joined(before)[last]))
        return ((said == APART) | ((said == JOINED) & joined))[self.order]

    def encode(self, data: bytes) -> list[int]:
        """The tokens; bytes that are no UTF-8 are merged without a pre-tokenizer."""
        if self._encoder is not None:
            try:
                ids = self._encoder(data.removeprefix(self.prefix).decode())
                if self.decode(ids) == data:
                    return ids
            except UnicodeDecodeError:
                pass
        return self.pairs.encode(list(self._leaves(data)))

    def _leaves(self, data: bytes) -> Iterator[int]:
        """What no merge makes: bytes, or characters where the tokenizer merges those."""
        at = 0
        while at < len(data):
            size = next((size for size in (4, 3, 2, 1) if data[at : at + size] in self._leaf), 0)
            if not size:
                raise PacelineError(f"The tokenizer has no token for the byte {data[at]}: leave it out.")
            yield self._leaf[data[at : at + size]]
            at += size

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes; special tokens are left out."""
        return b"".join(self.pieces[token] or b"" for token in ids)


def _of(tokenizer: Any) -> Vocabulary:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise PacelineError("A byte view needs a fast tokenizer of transformers: this one has no backend_tokenizer.")
    known = json.loads(backend.to_str())
    model, before, normal = known["model"], known["pre_tokenizer"] or {}, known["normalizer"] or {}
    if model["type"] != "BPE":
        raise PacelineError(f"A byte view needs a BPE, whose merges say what is written: this is a {model['type']}.")
    kinds = {step["type"] for step in normal.get("normalizers", [normal]) if step}
    if kinds - {"NFC", "Prepend", "Replace"}:
        raise PacelineError(
            f"This tokenizer changes the text before it reads it ({', '.join(sorted(kinds))}): give another."
        )
    steps = before.get("pretokenizers", [before])
    level = any(step.get("type") == "ByteLevel" for step in steps)
    if not level and not (model.get("byte_fallback") and not before):
        raise PacelineError("A byte view needs byte-level BPE, or BPE with byte_fallback and no pre-tokenizer.")
    special = {token["id"] for token in known["added_tokens"] if token["special"]}
    size = max(model["vocab"].values(), default=-1) + 1
    size = max([size, *(token["id"] + 1 for token in known["added_tokens"])])
    pieces: list[bytes | None] = [None] * size
    letters = _letters()
    for text, token in model["vocab"].items():
        if token not in special:
            pieces[token] = _level(text, letters) if level else _fallback(text, model["vocab"])
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    ids = model["vocab"]
    merges = [(ids[a], ids[b], ids[a + b]) for a, b in pairs if a in ids and b in ids and a + b in ids]

    def split(text: str) -> list[tuple[int, int]]:
        return [span for _, span in backend.pre_tokenizer.pre_tokenize_str(text)]

    def encode(text: str) -> list[int]:
        return list(backend.encode(text, add_special_tokens=False).ids)

    prefix = b" " if "Prepend" in kinds else b""
    return Vocabulary(pieces, merges, split if level else None, encode, prefix)


def _letters() -> dict[str, int]:
    """The byte of each character of byte-level BPE: itself where it prints, else the next from U+0100 on."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return {chr(byte) if byte in printing else chr(next(others)): byte for byte in range(256)}


def _level(text: str, letters: dict[str, int]) -> bytes | None:
    try:
        return bytes(letters[character] for character in text)
    except KeyError:  # an added token, which is no text
        return None


def _fallback(text: str, vocabulary: dict[str, int]) -> bytes | None:
    """`<0x41>` is a byte, used only for what is no token otherwise; `▁` is a space."""
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        byte = int(text[3:5], 16)
        plain = "▁" if byte == 32 else chr(byte)
        return None if byte < 128 and plain in vocabulary else bytes([byte])
    return text.replace("▁", " ").encode()
