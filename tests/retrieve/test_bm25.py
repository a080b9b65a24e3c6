"""BM25 against its formula, and what its words are."""

import math
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("bm25s")

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.retrieve.bm25 import BM25

DOCUMENTS = [
    "Copper kettles boil water; kettles of copper shine.",
    "A violet meadow, and a kettle left in it",
    "water water water",
    "Nobody boils copper water in violet meadows at night under lanterns of glass",
]


def naive(query: list[str], documents: list[list[str]], k1: float, b: float) -> list[float]:
    """The formula, a word and a document at a time."""
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for words in documents:
        counts, score = Counter(words), 0.0
        for word in query:
            held = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - held + 0.5) / (held + 0.5))
            score += idf * counts[word] / (counts[word] + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (2.0, 0.0), (1.2, 1.0)])
def test_scores_equal_the_formula(k1: float, b: float) -> None:
    stop = {"of", "a", "and", "in", "it", "at"}
    words = [[w.strip(".;,").lower() for w in d.split() if w.strip(".;,").lower() not in stop] for d in DOCUMENTS]
    words = [[w for w in each if len(w) > 1] for each in words]
    search = BM25(k1, b)
    search.index(DOCUMENTS)
    for query in ("copper water", "violet violet kettle", "lanterns unknown"):
        hits = search.search([query], len(DOCUMENTS))
        scores = np.empty(len(DOCUMENTS))
        scores[hits.ids[0]] = hits.scores[0]
        expected = np.array(naive(query.split(), words, k1, b))
        assert close(scores, expected, "float32")


def test_a_query_of_unknown_or_common_words_scores_nothing() -> None:
    search = BM25()
    search.index(DOCUMENTS)
    for query in ("zebra", "of the and"):
        hits = search.search([query], 3)
        assert hits.ids.tolist() == [[0, 1, 2]] and not hits.scores.any()


@pytest.mark.parametrize("wrong", [{"k1": 0.0}, {"k1": float("inf")}, {"b": 1.5}, {"b": -0.1}])
def test_a_value_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(PacelineError, match="bm25 needs k1 above 0"):
        BM25(**wrong)


def test_documents_without_a_word_are_refused() -> None:
    with pytest.raises(PacelineError, match="no word of two letters"):
        BM25().index(["?", "a !"])
