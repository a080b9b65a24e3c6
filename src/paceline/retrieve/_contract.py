"""What a retriever is: it indexes documents once, then ranks them for any query; and what it may keep on disk.

    index(documents)            reads n texts
    search(queries, k)          the k best of them for each query, best first; of equals the earlier document

`arrays` and `facts` are the index as it can be stored (named arrays, and what JSON can hold); `restore` takes them
back, so that texts are read once and searched often.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.errors import PacelineError


class Hits(NamedTuple):
    """What was found: a row for each query, best first."""

    ids: Int[np.ndarray, "q k"]
    """Numbers of the documents, as they were given to `index`."""
    scores: Float[np.ndarray, "q k"]
    """In the retriever's own unit; more is better."""


@runtime_checkable
class Encoder(Protocol):
    """Texts to vectors of length 1."""

    def fit(self, documents: Sequence[str]) -> None:
        """Learn what the encoder takes from the documents themselves, such as how frequent words are; or nothing."""
        ...

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """A vector of length 1 for each text, in float32."""
        ...


class Retriever(ABC):
    """Ranks documents. Its scores follow from query and documents alone: the same call gives the same hits."""

    size: int = 0
    """Documents in the index."""

    def index(self, documents: Sequence[str]) -> None:
        """Read the documents; what was indexed before is forgotten.

        Raises:
            PacelineError: there are none, or none with a word in it.
        """
        if not any(document.strip() for document in documents):
            raise PacelineError("There is nothing to search: give at least one document that is not blank.")
        self._index(list(documents))
        self.size = len(documents)

    def search(self, queries: Sequence[str], k: int = 10) -> Hits:
        """The `k` best documents for each query; all, where there are fewer.

        Raises:
            PacelineError: nothing is indexed, a query is blank, or k is below 1.
        """
        if k < 1:
            raise PacelineError(f"At least one document must be asked for, not {k}.")
        if not self.size:
            raise PacelineError("Nothing is indexed yet: call index(documents) before search.")
        if not queries or not all(query.strip() for query in queries):
            raise PacelineError("A query is empty: give at least one word to search for.")
        return self._search(list(queries), min(k, self.size))

    @abstractmethod
    def _index(self, documents: list[str]) -> None:
        """Read documents, one of which at least is not blank."""

    @abstractmethod
    def _search(self, queries: list[str], k: int) -> Hits:
        """Rank for queries that are not blank; 1 <= k <= size."""

    @abstractmethod
    def stored(self) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
        """The index: named arrays, and facts that JSON can hold."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Take back what `stored` gave."""

    def meters(self) -> dict[str, float]:
        """What the method did in the last search, in its own words; empty where it has nothing to tell."""
        return {}
