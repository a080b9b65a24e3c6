"""Dense search: documents and queries are vectors of length 1, and the documents of the largest products are found.

    score(q, d) = f(q) . f(d)

with an encoder f. The search is exact: one product of (q, d) with (n, d), in lots of queries, then the k largest. That
is q n d multiply-adds and 4 n d bytes; up to some 100,000 documents it takes less time than encoding the query.

The encoder is MiniLM (`_sentences.py`) unless another is given: a folder of sentence-transformers, or any object of
`_contract.Encoder`, such as `_unsupervised.TokenMeans`, which was never trained for search.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paceline.core.card import Source
from paceline.retrieve._best import best, stacked
from paceline.retrieve._contract import Encoder, Hits, Retriever
from paceline.retrieve._sentences import Sentences

PAPERS = (
    Source(
        title="Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
        arxiv="1908.10084",
        year=2019,
        says="one vector a text, compared by cosine, so that documents are encoded once",
    ),
)
LOT = 2**24
"""Scores held at once."""
PIECE = 64
"""Documents encoded between two reports."""


class Dense(Retriever):
    """Search by vectors.

    Args:
        encoder: `minilm`, the folder of a model of sentence-transformers, or an encoder itself.

    Raises:
        PacelineError: the encoder cannot be opened.

    Attributes:
        vectors: the documents', (n, d), each of length 1.
        watch: is told how many documents have been encoded.
    """

    vectors: Float[Tensor, "n d"]

    def __init__(self, encoder: str | Encoder = "minilm") -> None:
        if isinstance(encoder, str):
            encoder = Sentences(None if encoder == "minilm" else encoder)
        self.encoder: Encoder = encoder
        self.watch: Callable[[int], object] = int

    def _index(self, documents: list[str]) -> None:
        self.encoder.fit(documents)
        parts = []
        for start in range(0, len(documents), PIECE):
            parts.append(self.encoder(documents[start : start + PIECE]))
            self.watch(min(start + PIECE, len(documents)))
        self.vectors = torch.cat(parts)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """The vectors of texts, each of length 1."""
        return self.encoder(texts)

    def near(self, vectors: Float[Tensor, "q d"], k: int) -> Hits:
        """The documents of the largest products with given vectors."""
        rows = max(1, LOT // self.size)
        return stacked([best((lot @ self.vectors.T).numpy(), k) for lot in vectors.split(rows)])

    def _search(self, queries: list[str], k: int) -> Hits:
        return self.near(self.encode(queries), k)

    def stored(self) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
        """See `Retriever.stored`."""
        return {"vectors": self.vectors.numpy()}, {"size": self.size}

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """See `Retriever.restore`. An encoder that learns from the documents must have been fitted before."""
        self.vectors, self.size = torch.from_numpy(np.ascontiguousarray(arrays["vectors"])), int(facts["size"])


class Trigrams:
    """Counts of three letters in a row, put into 256 places by their code: an encoder that needs no model.

    For tests and examples: texts with the same letters are near.
    """

    def fit(self, documents: Sequence[str]) -> None:
        """Nothing is taken from the documents."""

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """See `Encoder`."""
        vectors = torch.zeros(len(texts), 256)
        for row, text in zip(vectors, texts, strict=True):
            padded = f" {' '.join(text.lower().split())} "
            for i in range(len(padded) - 2):
                code = ord(padded[i]) * 961 + ord(padded[i + 1]) * 31 + ord(padded[i + 2])
                row[code % 256] += 1
        return functional.normalize(vectors, dim=1)


def example() -> list[Retriever]:
    """On counts of letters."""
    return [Dense(Trigrams())]
