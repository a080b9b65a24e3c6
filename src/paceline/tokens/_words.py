"""Where a pre-tokenizer splits between tokens, asked once for each kind of characters about the boundary.

The expressions in use look at kinds of characters (letters, digits, spaces, contractions), so each character stands for
its kind, and of a token only the last or first three count. They also look ahead (a space belongs to the word after
it), so a boundary is possible where it is right with any one of a few continuations.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

Split = Callable[[str], Sequence[tuple[int, int]]]
"""The spans of the words of a text, in characters."""

LITERAL = frozenset(" \n\r\t'/sdmtlvreSDMTLVRE")
AFTER = ("", "x", " ")
"""What may come next, for expressions that look ahead."""
NO, JOINED, APART = 0, 1, 2
"""The boundary cannot be; it is within a word, so that merges decide; or the words are split there."""


def kind(character: str) -> str:
    """A character that expressions treat alike."""
    if character in LITERAL:
        return character
    group = unicodedata.category(character)
    if group[0] == "L":
        return "X" if group == "Lu" else "x"
    return "7" if group[0] == "N" else "\u0301" if group[0] == "M" else "\u00a0" if character.isspace() else "."


class Words:
    """What a pre-tokenizer says of boundaries.

    Args:
        pieces: the bytes of each token; None for special ones.
        split: the pre-tokenizer.
    """

    def __init__(self, pieces: Sequence[bytes | None], split: Split) -> None:
        self.split = split
        heads = [_head(piece or b"") for piece in pieces]
        known = {head: i for i, head in enumerate(dict.fromkeys(heads))}
        self._heads = list(known)
        self._which = np.array([known[head] for head in heads])
        self._row = lru_cache(maxsize=4096)(self._judge)

    def boundary(self, before: bytes, last: bytes, joined: bool) -> np.ndarray:
        """(tokens,) of NO, JOINED and APART, for what follows the token `last` and the one before it.

        Args:
            joined: whether merges allow these two within a word.
        """
        end = _tail(last, 4)
        if len(end) > 3:  # what comes before does not touch what is looked at
            return self._row("", end[1:], True)[self._which]
        return self._row(_tail(before, 2), end, joined)[self._which]

    def _judge(self, before: str, last: str, joined: bool) -> np.ndarray:
        return np.array([self._one(before, last, *head, joined) for head in self._heads], dtype=np.int8)

    def _one(self, before: str, last: str, head: str, whole: bool, within: bool, joined: bool) -> int:
        if within:  # the boundary lies in a character
            return JOINED
        first, second = len(before), len(before) + len(last)
        end = second + len(head)
        best = NO
        for after in AFTER if whole else ("",):
            cuts = {start for start, _ in self.split(before + last + head + after) if 0 < start < end}
            if cuts <= {first, second} and (joined or not before or first in cuts):
                best = max(best, APART if second in cuts else JOINED)
        return best


def _tail(piece: bytes, most: int) -> str:
    return "".join(map(kind, piece.decode(errors="replace")[-most:]))


def _head(piece: bytes) -> tuple[str, bool, bool]:
    """Kinds of the first three characters, whether that is all, and whether the token begins within a character."""
    text = piece.decode(errors="replace")
    return "".join(map(kind, text[:3])), len(text) <= 3, bool(piece) and 0x80 <= piece[0] < 0xC0
