"""BM25: documents that hold the query's words, rare words first, long documents held back.

    score(q, d) = sum over w in q   ln(1 + (n - n_w + 1/2) / (n_w + 1/2)) * f / (f + k1 (1 - b + b |d| / mean |d|))

with f how often w occurs in d, n_w the documents that hold it, n all documents. Words are runs of letters and digits,
at least two, in lower case, English stop words left out. Every word's scores are worked out when documents are indexed
(the library bm25s), so a query adds up as many lists as it has words: time and memory go with the words' occurrences.
Lucene's variant, of which ln(1 + ...) never falls below 0; the constant factor k1 + 1 is left out, as Lucene does.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.retrieve._best import best_of
from paceline.retrieve._contract import Hits, Retriever

PAPERS = (
    Source(
        title="The Probabilistic Relevance Framework: BM25 and Beyond",
        year=2009,
        says="words that are rare in the collection and frequent in the document, its length taken into account",
    ),
)


class BM25(Retriever):
    """Search by words.

    Args:
        k1: how soon more occurrences of a word stop to count.
        b: how much long documents are held back, 0 to 1.

    Raises:
        PacelineError: a value outside its range, or bm25s is not installed.
    """

    def __init__(self, k1: float = 1.5, b: float = 0.75) -> None:
        if not 0 < k1 < float("inf") or not 0 <= b <= 1:
            raise PacelineError(f"bm25 needs k1 above 0 and b from 0 to 1, not k1={k1}, b={b}.")
        self.k1, self.b = k1, b
        self._words = self._new()

    def _new(self) -> Any:
        return _bm25s().BM25(k1=self.k1, b=self.b, method="lucene")

    def _index(self, documents: list[str]) -> None:
        self._words = self._new()
        tokens = _split(documents)
        if not any(tokens):
            raise PacelineError("The documents have no word of two letters or more: bm25 finds nothing in them.")
        self._words.index(tokens, show_progress=False, create_empty_token=False)

    def _search(self, queries: list[str], k: int) -> Hits:
        known, nothing = self._words.vocab_dict, np.zeros(self.size, np.float32)
        places, values = [], []
        for words in _split(queries):
            ids = [known[word] for word in words if word in known]
            scores = self._words.get_scores_from_ids(ids) if ids else nothing
            places.append(best_of(scores, k))
            values.append(scores[places[-1]])
        return Hits(np.array(places), np.array(values))

    def stored(self) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
        """See `Retriever.stored`."""
        scores = self._words.scores
        arrays = {name: scores[name] for name in ("data", "indices", "indptr")}
        return arrays, {"words": self._words.vocab_dict, "size": self.size}

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """See `Retriever.restore`."""
        self._words, self.size = self._new(), int(facts["size"])
        self._words.scores = {**arrays, "num_docs": self.size}
        self._words.vocab_dict, self._words.nonoccurrence_array = dict(facts["words"]), None


def _split(texts: list[str]) -> list[list[str]]:
    """The words of each text."""
    words: list[list[str]] = _bm25s().tokenize(texts, return_ids=False, show_progress=False)
    return words


def _bm25s() -> Any:
    try:
        return importlib.import_module("bm25s")
    except ImportError as error:
        raise PacelineError("bm25 needs bm25s: pip install 'bm25s>=0.3'.") from error


def example() -> list[Retriever]:
    """As it comes, and with lengths ignored."""
    return [BM25(), BM25(k1=0.9, b=0.0)]
