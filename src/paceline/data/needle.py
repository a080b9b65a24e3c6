"""Needle in a haystack: one key-value pair lies among filler, and at the end the key asks for its value.

    . . . k v . . . . . . . . k  ->  v         distance: how many tokens lie from v to the question, here 9

The filler is uniform noise, or a text of a small Markov source, in which each symbol has three likely followers: a
model can learn to predict it, as it would words. The evaluation spreads its distances evenly, and `by_distance` says
how accuracy falls with them.
"""

from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.data._contract import IGNORE, Batch, Generated

PAPERS = (
    Source(
        title="RULER: What's the Real Context Size of Your Long-Context Language Models?", arxiv="2404.06654", year=2024
    ),
)

_TEXT = 32_768  # tokens of the Markov text, from which windows are cut


class Needle(Generated):
    """A key-value pair at a chosen distance before the question.

    Args:
        length: tokens of a sequence.
        nearest: least distance from value to question, at least 1.
        farthest: greatest distance, at most length - 2, where the pair comes first; that, when not given.
        keys: kinds of keys.
        values: kinds of values.
        symbols: kinds of filler.
        filler: "random" or "markov".

    Raises:
        PacelineError: the distances do not fit in the length, a size is too small, or there is no such filler.
    """

    name = "needle"
    title = "Needle in a haystack"
    one_answer = True

    def __init__(
        self,
        length: int = 128,
        nearest: int = 1,
        farthest: int | None = None,
        keys: int = 8,
        values: int = 8,
        symbols: int = 16,
        filler: Literal["random", "markov"] = "random",
    ) -> None:
        farthest = length - 2 if farthest is None else farthest
        if not 1 <= nearest <= farthest <= length - 2:
            raise PacelineError(
                f"needle: distances from nearest={nearest} to farthest={farthest} do not fit in length={length}: they "
                "lie between 1 and length - 2."
            )
        if min(keys, symbols) < 1 or values < 2:
            raise PacelineError(f"needle: keys={keys}, values={values}, symbols={symbols} need at least 1, 2 and 1.")
        if filler not in ("random", "markov"):
            raise PacelineError(f"needle: there is no filler={filler!r}: give 'random' or 'markov'.")
        self.length, self.nearest, self.farthest = length, nearest, farthest
        self.prompt = length - 1
        self.keys, self.values, self.symbols, self.filler = keys, values, symbols, filler
        self.vocab_size = keys + values + symbols

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Distances are even over their range."""
        distances = torch.randint(self.nearest, self.farthest + 1, (size,), generator=generator)
        return self._hide(distances, generator)

    def evaluation(self) -> Batch:
        """Distances spread evenly over their range, in ascending order."""
        generator = torch.Generator().manual_seed(derive(0, "evaluation", self.name))
        return self._hide(torch.linspace(self.nearest, self.farthest, self.items).round().long(), generator)

    def _hide(self, distances: Tensor, generator: torch.Generator) -> Batch:
        """Keys are tokens 0 .. keys-1, values the next ones, filler the rest."""
        size = len(distances)
        ids = self._haystack(size, generator) + self.keys + self.values
        key = torch.randint(self.keys, (size,), generator=generator)
        value = torch.randint(self.values, (size,), generator=generator) + self.keys
        place = (self.length - 1 - distances).unsqueeze(1)
        ids.scatter_(1, torch.cat((place - 1, place), 1), torch.stack((key, value), 1))
        ids[:, -1] = key
        targets = torch.full_like(ids, IGNORE)
        targets[:, -1] = value
        return Batch(ids, targets)

    def _haystack(self, size: int, generator: torch.Generator) -> Tensor:
        if self.filler == "random":
            return torch.randint(self.symbols, (size, self.length), generator=generator)
        text = _markov(self.symbols)
        starts = torch.randint(len(text), (size, 1), generator=generator)
        return text[(starts + torch.arange(self.length)) % len(text)]

    def distances(self, ids: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
        """How far before the question each sequence told its value, in tokens."""
        told = (ids >= self.keys) & (ids < self.keys + self.values)
        return self.length - 1 - told.int().argmax(1)

    def by_distance(self, scores: Float[Tensor, " b"], bins: int = 8) -> list[tuple[int, int, float]]:
        """Accuracy by distance, of the evaluation's scores: (nearest, farthest, mean score) of `bins` equal parts.

        Raises:
            PacelineError: not one score for each item of the evaluation, or more bins than items.
        """
        if len(scores) != self.items or not 1 <= bins <= self.items:
            raise PacelineError(
                f"needle: {len(scores)} scores in bins={bins} are not {self.items} items in fewer bins."
            )
        distances = self.distances(self.evaluation().ids)
        parts = zip(distances.tensor_split(bins), scores.tensor_split(bins), strict=True)
        return [(int(part[0]), int(part[-1]), float(score.mean())) for part, score in parts]

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"A key-value pair lies among {self.length - 3} tokens of {self.filler} filler; its key, "
            f"{self.nearest} to {self.farthest} tokens after the value, asks for it."
        )

    @property
    def floor(self) -> float:
        """A guess among all values."""
        return 1 / self.values

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """k1 for keys, digits (or #n) for values, letters (or .n) for filler."""
        names = [f"k{i} " for i in range(self.keys)] + [f"{i if i < 10 else f'#{i}'} " for i in range(self.values)]
        names += [f"{chr(97 + i) if i < 26 else f'.{i}'} " for i in range(self.symbols)]
        return [names[i] for i in ids.tolist()]


@cache
def _markov(symbols: int) -> Int[Tensor, " n"]:
    """A text over `symbols`: nine steps in ten go to one of three followers of each, the tenth anywhere."""
    generator = torch.Generator().manual_seed(derive(0, "markov", symbols))
    followers = torch.randint(symbols, (symbols, 3), generator=generator).tolist()
    choice = torch.randint(30, (_TEXT,), generator=generator).tolist()
    stray = torch.randint(symbols, (_TEXT,), generator=generator).tolist()
    text = [0]
    for pick, other in zip(choice[1:], stray[1:], strict=True):
        text.append(followers[text[-1]][pick % 3] if pick < 27 else other)
    return torch.tensor(text)


def example() -> Needle:
    """The smallest instance for the contract tests."""
    return Needle(length=12, keys=2, values=3, symbols=3)
