"""What an evaluation is: questions of any length in a model's own words, drawn from a seed, and how answers score.

    item(words, length, seed)     a prompt of at most `length` tokens, filled up to nearly that, its answer, and options
    score(answer, item)           what a written answer is worth, 0 to 1
    choice(ranks, item)           what choosing an option is worth, for models too small to write answers

What the answer follows from is told in a few pieces; the rest of the prompt, around and between them, changes nothing.
The same seed gives the same pieces at any length, so that length is all that differs.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from paceline.core.errors import PacelineError


@runtime_checkable
class Words(Protocol):
    """Text to tokens and back."""

    def encode(self, text: str) -> list[int]:
        """The text's tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The tokens' text."""
        ...


@dataclass(frozen=True)
class Item:
    """One question."""

    prompt: str
    """Ends where the answer begins."""
    answer: str
    options: tuple[str, ...]
    """Ways to go on, `answer` among them, each as likely beforehand."""
    told: tuple[str, ...]
    """The pieces of the prompt that the answer follows from, in order."""
    facts: dict[str, str] = field(default_factory=dict)
    """What the scorer needs besides."""


class Evaluation(ABC):
    """A kind of question with its scorer. Subclasses are final."""

    title: str
    floor: float
    """What choosing an option at random is worth on average."""

    @abstractmethod
    def item(self, words: Words, length: int, seed: int) -> Item:
        """The question number `seed`, in a prompt of at most `length` tokens.

        Raises:
            PacelineError: not even what must be told fits.
        """

    @abstractmethod
    def score(self, answer: str, item: Item) -> float:
        """What a written answer is worth, 0 to 1; what follows the answer counts as the method says."""

    def choice(self, option: int, item: Item) -> float:
        """What it is worth to choose the option of this number."""
        return float(item.options[option] == item.answer)


def fill(
    words: Words,
    length: int,
    head: str,
    told: Sequence[str],
    tail: str,
    filler: Callable[[], str],
    draw: random.Random,
) -> str:
    """A prompt of at most `length` tokens: head, the told pieces in order with filler anywhere between, tail.

    Args:
        words: whose tokens are counted.
        length: tokens, at most.
        head: what comes first.
        told: pieces that must be there.
        tail: what comes last.
        filler: makes another irrelevant piece.
        draw: decides where filler goes.

    Raises:
        PacelineError: head, told pieces and tail alone are longer.
    """

    def size(text: str) -> int:
        return len(words.encode(text))

    bare = size(head + "".join(told) + tail)
    if bare > length:
        raise PacelineError(f"The question alone takes {bare:,} tokens, not {length:,}: ask for a greater length.")
    pieces: list[str] = []
    spent = bare
    while spent < length:  # a first estimate, piece by piece
        pieces.append(filler())
        spent += size(pieces[-1])
    gaps = sorted(draw.randrange(len(told) + 1) for _ in pieces)
    # Tokens of the joined text are not quite the sum of the pieces': a piece at a time until it fits.
    while True:
        text = head + "".join(_laid(told, pieces, gaps)) + tail
        if size(text) <= length:
            return text
        drop = draw.randrange(len(pieces))
        del pieces[drop], gaps[drop]


def _laid(told: Sequence[str], pieces: Sequence[str], gaps: Sequence[int]) -> list[str]:
    """Filler piece i goes before told piece gaps[i], or after the last."""
    out: list[str] = []
    at = 0
    for number, piece in enumerate((*told, "")):
        while at < len(pieces) and gaps[at] == number:
            out.append(pieces[at])
            at += 1
        out.append(piece)
    return out
