"""HyDE: a language model writes texts that could answer the query, and documents near these texts are found.

    d_1 .. d_N  ~  LM( instruction(query) )            sampled: passages that look right and may be wrong
    v            =  ( f(d_1) + ... + f(d_N) + f(query) ) / (N + 1)
    score(doc)   =  v . f(doc)

f is the encoder of a dense search, which need not have been trained for search: query and documents are compared as
documents with documents. What is invented wrongly is lost in the encoder's vector, or brings up wrong documents.

Cost: N texts of the language model for each query, seconds to minutes on a processor, then one dense search. Nothing is
trained. Departures: f gives vectors of length 1, where the paper's Contriever does not; and where the model writes
nothing at all, the query's own vector is searched. The instruction is the paper's for web search; it has one for each
task, so `prompt` should say what kind of text is searched.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.retrieve._contract import Hits, Retriever
from paceline.retrieve.dense import Dense, Trigrams

PAPERS = (
    Paper(
        title="Precise Zero-Shot Dense Retrieval without Relevance Labels",
        arxiv="2212.10496",
        year=2022,
        says="Searching by the encoded texts that a language model imagines as answers beats searching by the query "
        "with the same unsupervised encoder, without any training.",
    ),
)
WEB_SEARCH = "Please write a passage to answer the question.\nQuestion: {}\nPassage:"
"""The authors' instruction for web search."""

Writer = Callable[[str, int, int], Sequence[str]]
"""(prompt, n, seed) -> n texts, sampled."""


class HyDE(Retriever):
    """Search by imagined documents.

    Args:
        base: the dense search whose encoder and index are used.
        write: the language model: `write(prompt, n, seed)` gives n texts.
        documents: how many are written for a query, N.
        prompt: the instruction, with {} where the query goes.
        seed: of what is written.

    Raises:
        PacelineError: `documents` is below 1, or `prompt` has no place for the query.
    """

    def __init__(self, base: Dense, write: Writer, documents: int = 8, prompt: str = WEB_SEARCH, seed: int = 0) -> None:
        if documents < 1:
            raise PacelineError(f"hyde writes at least one document, not {documents}.")
        if prompt.count("{}") != 1:
            raise PacelineError("hyde's prompt needs {} once, where the query goes.")
        self.base, self.write, self.documents, self.prompt, self.seed = base, write, documents, prompt, seed
        self._moved: list[float] = []
        self._written = 0

    def imagine(self, query: str) -> list[str]:
        """The documents that the language model writes for a query; blank ones are left out."""
        texts = self.write(self.prompt.replace("{}", query), self.documents, self.seed)
        return [text for text in texts if text.strip()]

    def encode(self, query: str, texts: Sequence[str]) -> Float[Tensor, " d"]:
        """The mean of the vectors of the query and of the texts imagined for it."""
        return self.base.encode([query, *texts]).mean(0)

    def _index(self, documents: list[str]) -> None:
        self.base.index(documents)

    def _search(self, queries: list[str], k: int) -> Hits:
        imagined = [self.imagine(query) for query in queries]
        vectors = torch.stack([self.encode(query, texts) for query, texts in zip(queries, imagined, strict=True)])
        self._moved = (1 - functional.cosine_similarity(vectors, self.base.encode(queries), dim=1)).tolist()
        self._written = sum(map(len, imagined))
        return self.base.near(vectors, k)

    def stored(self) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
        """See `Retriever.stored`: the index is the dense search's."""
        return self.base.stored()

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """See `Retriever.restore`."""
        self.base.restore(arrays, facts)
        self.size = self.base.size

    def meters(self) -> dict[str, float]:
        """How far the imagined texts moved the queries (1 - cosine), and how many a query were not blank."""
        count = max(1, len(self._moved))
        return {"moved": sum(self._moved) / count, "written": self._written / count}


def example() -> list[Retriever]:
    """With a writer that turns the query's words round."""

    def write(prompt: str, n: int, seed: int) -> list[str]:
        words = prompt.split("Question: ")[1].split("\nPassage:")[0].split()
        return [" ".join(words[::-1][i % len(words) :]) for i in range(seed, seed + n)]

    return [HyDE(Dense(Trigrams()), write, documents=2)]
