"""What every retriever promises: a toy index is searched exactly, the same way each time, and nonsense is refused."""

import numpy as np
import pytest

from paceline.core.discovery import load, methods
from paceline.core.errors import PacelineError
from paceline.retrieve._contract import Retriever

TOPICS = ("copper kettle", "violet meadow", "quantum lantern", "harbor falcon", "pepper marble", "winter orchard")
DOCUMENTS = [f"{topic} {filler}" for topic in TOPICS for filler in ("stands alone", "was seen by nobody yesterday")]


def retrievers(method: str) -> list[Retriever]:
    return load("retrieve", method).example()


def indexed(method: str) -> list[Retriever]:
    found = retrievers(method)
    for retriever in found:
        retriever.index(DOCUMENTS)
    return found


every_method = pytest.mark.parametrize("method", methods("retrieve"))


@every_method
def test_on_a_toy_index_the_documents_of_the_topic_come_first(method: str) -> None:
    for retriever in indexed(method):
        hits = retriever.search(TOPICS, 2)
        assert np.sort(hits.ids).tolist() == [[2 * i, 2 * i + 1] for i in range(len(TOPICS))]


@every_method
def test_search_is_a_cut_of_the_whole_ranking(method: str) -> None:
    for retriever in indexed(method):
        whole = retriever.search(TOPICS, len(DOCUMENTS))
        assert np.sort(whole.ids).tolist() == [list(range(len(DOCUMENTS)))] * len(TOPICS)
        assert (np.diff(whole.scores) <= 0).all()
        for k in (1, 3, 7):
            hits = retriever.search(TOPICS, k)
            assert hits.ids.tolist() == whole.ids[:, :k].tolist() and np.array_equal(hits.scores, whole.scores[:, :k])


@every_method
def test_the_order_of_documents_changes_numbers_alone(method: str) -> None:
    order = np.random.default_rng(0).permutation(len(DOCUMENTS))
    for one, other in zip(indexed(method), retrievers(method), strict=True):
        other.index([DOCUMENTS[i] for i in order])
        a, b = (retriever.search(TOPICS, len(DOCUMENTS)) for retriever in (one, other))
        scores = np.empty_like(b.scores)
        np.put_along_axis(scores, order[b.ids], b.scores, axis=1)
        assert scores == pytest.approx(np.take_along_axis(a.scores, a.ids.argsort(1), axis=1), abs=1e-5)


@every_method
def test_of_equal_documents_the_earlier_comes_first(method: str) -> None:
    for retriever in retrievers(method):
        retriever.index(["copper kettle"] * 40 + ["violet meadow"] * 40)
        assert retriever.search(["violet meadow"], 20).ids.tolist() == [list(range(40, 60))]
        assert retriever.search(["copper kettle"], 20).ids.tolist() == [list(range(20))]


@every_method
def test_the_same_search_gives_the_same_hits_alone_and_among_others(method: str) -> None:
    for one, other in zip(indexed(method), indexed(method), strict=True):
        together = one.search(TOPICS, 4)
        for row, topic in enumerate(TOPICS):
            alone = other.search([topic], 4)
            assert alone.ids[0].tolist() == together.ids[row].tolist()
            assert alone.scores[0] == pytest.approx(together.scores[row], abs=1e-6)


@every_method
def test_more_hits_than_documents_gives_all(method: str) -> None:
    for retriever in indexed(method):
        assert retriever.search(["falcon"], 500).ids.shape == (1, len(DOCUMENTS))


@every_method
def test_indexing_again_forgets(method: str) -> None:
    for retriever in indexed(method):
        retriever.index(["one lantern", "two kettles", "three falcons"])
        assert retriever.size == 3 and retriever.search(["falcons"], 9).ids[0][0] == 2


@every_method
def test_a_stored_index_finds_the_same(method: str) -> None:
    for one, other in zip(indexed(method), retrievers(method), strict=True):
        arrays, facts = one.stored()
        other.restore(arrays, facts)
        a, b = (retriever.search(TOPICS, 5) for retriever in (one, other))
        assert a.ids.tolist() == b.ids.tolist() and np.array_equal(a.scores, b.scores)


@every_method
def test_what_cannot_be_searched_is_refused(method: str) -> None:
    for retriever in retrievers(method):
        with pytest.raises(PacelineError, match="Nothing is indexed"):
            retriever.search(["falcon"])
        for nothing in ([], ["", " \n"]):
            with pytest.raises(PacelineError, match="nothing to search"):
                retriever.index(nothing)
        retriever.index(DOCUMENTS)
        for query in ([], [""], ["falcon", " \t"]):
            with pytest.raises(PacelineError, match="query is empty"):
                retriever.search(query)
        with pytest.raises(PacelineError, match="At least one document"):
            retriever.search(["falcon"], 0)


@every_method
def test_blank_documents_keep_their_numbers(method: str) -> None:
    for retriever in retrievers(method):
        retriever.index(["", "copper kettle", "  ", "violet meadow"])
        assert retriever.search(["violet meadow"], 1).ids.tolist() == [[3]]


@every_method
def test_odd_text_is_searched_too(method: str) -> None:
    for retriever in indexed(method):
        for query in ("the", "?", "日本", "é" * 2000, "falcon \N{ROCKET} \x00"):
            hits = retriever.search([query], 3)
            assert hits.ids.shape == (1, 3) and np.isfinite(hits.scores).all()
