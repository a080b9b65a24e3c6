"""Multi-query associative recall: pairs are told once, long before they are asked for.

    k1 v1 k2 v2 ... . . . . . q q q q ...      each q is one of the keys, and its answer is that key's value

The pairs come first, then a stretch of blanks, then the queries; an answer is never shown. The distance from a query
to its pair is at least the stretch, so what cannot look back or remember that far must guess. With reads=2 the whole
comes twice, and only the second queries are asked: on the second reading it is known what will be (JRT-Prompt).
"""

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE, Batch, Generated
from paceline.data._twice import read_twice

PAPERS = (
    Source(title="Zoology: Measuring and Improving Recall in Efficient Language Models", arxiv="2312.04927", year=2023),
)


class Recall(Generated):
    """Multi-query associative recall.

    Args:
        pairs: pairs told in a sequence, with different keys.
        keys: kinds of keys.
        values: kinds of values.
        stretch: blanks between the last pair and the first query.
        queries: questions asked, drawn from the pairs.
        reads: how often the sequence is read, 1 or 2.

    Raises:
        PacelineError: more pairs than keys, a size below 1, or other reads.
    """

    name = "recall"
    title = "Associative recall"

    def __init__(
        self, pairs: int = 4, keys: int = 8, values: int = 8, stretch: int = 16, queries: int = 16, reads: int = 1
    ) -> None:
        if not 1 <= pairs <= keys or min(values, queries) < 1 or stretch < 0:
            raise PacelineError(f"recall: pairs={pairs} needs keys={keys} at least as many, and no size below 1.")
        if reads not in (1, 2):
            raise PacelineError(f"recall: reads={reads} is not offered; read once or twice.")
        self.pairs, self.keys, self.values, self.stretch, self.queries = pairs, keys, values, stretch, queries
        self.reads, once = reads, 2 * pairs + stretch + queries
        self.vocab_size, self.length = keys + values + 1, reads * once
        self.prompt = self.length - queries

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Keys are tokens 0 .. keys-1, values the next ones, the blank the last."""
        keys = torch.rand(size, self.keys, generator=generator).argsort(1)[:, : self.pairs]
        values = torch.randint(self.values, (size, self.pairs), generator=generator) + self.keys
        asked = torch.randint(self.pairs, (size, self.queries), generator=generator)
        blanks = torch.full((size, self.stretch), self.vocab_size - 1)
        told = torch.stack((keys, values), dim=2).flatten(1)
        ids = torch.cat((told, blanks, keys.gather(1, asked)), dim=1)
        targets = torch.full_like(ids, IGNORE)
        targets[:, -self.queries :] = values.gather(1, asked)
        batch = Batch(ids, targets)
        return read_twice(batch, ids.shape[1]) if self.reads == 2 else batch

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"{self.pairs} key-value pairs are told, {self.stretch} blanks follow, then {self.queries} keys ask for "
            f"their values; at least {self.stretch + 1} tokens lie between a pair and a question"
            f"{', and all is read twice' if self.reads == 2 else ''}."
        )

    @property
    def floor(self) -> float:
        """A guess among all values."""
        return 1 / self.values

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Letters for keys, digits (or #n) for values, a dot for the blank."""
        names = [f"{chr(97 + i) if i < 26 else f'k{i}'} " for i in range(self.keys)]
        names += [f"{i if i < 10 else f'#{i}'} " for i in range(self.values)] + [". "]
        return [names[i] for i in ids.tolist()]


def example() -> Recall:
    """The smallest instance for the contract tests."""
    return Recall(pairs=2, keys=3, values=3, stretch=2, queries=3)
