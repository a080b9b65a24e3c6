"""The claim on HyDE: words asked for, texts drawn, and what makes it lose the mark `faithful`."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("bm25s")

from paceline.claims._pretrained import TINY
from paceline.claims._retrieval import open_tiny_or
from paceline.claims._search import Words, nouns, shared_out
from paceline.claims.retrieve import hyde as claim
from paceline.core.errors import PacelineError
from paceline.lm.writing import drawn
from paceline.retrieve.hyde import HyDE


@pytest.fixture(autouse=True)
def _packaged() -> None:
    try:
        nouns()
    except PacelineError as error:
        pytest.skip(str(error))


def test_seeds_ask_for_words_of_their_own() -> None:
    task = Words(TINY, 20, 4, 48)
    asked = [number for seed in range(14) for number in task.asked(seed, 2065)]
    assert len(set(asked)) == 280 and task.asked(3, 2065) == task.asked(3, 2065) != task.asked(3 + 103, 2065)
    with pytest.raises(PacelineError, match="There are 19 words"):
        task.asked(0, 19)


def test_no_document_holds_its_word() -> None:
    held = nouns()
    assert len(held) > 5_000 and not [word for word, text in held if word in text.lower().split()]


def test_texts_are_drawn_by_seed_alone() -> None:
    opened = open_tiny_or(TINY)
    texts = drawn(opened, ["one", "another prompt"], 3, 8, 0.7, 1)
    assert [len(lot) for lot in texts] == [3, 3] and len({text for lot in texts for text in lot}) == 6
    assert drawn(opened, ["one", "another prompt"], 3, 8, 0.7, 1) == texts != drawn(opened, ["one", "x"], 3, 8, 0.7, 2)


def test_what_is_shared_out_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []
    places = [tmp_path / "deep" / f"{number}.json" for number in range(3)]
    for _ in range(2):
        assert shared_out(places, lambda number: made.append(number) or [number]) == [[0], [1], [2]]
    assert made == [0, 1, 2]


def test_faithful_is_lost_without_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    assert claim.faithful()
    monkeypatch.setattr(HyDE, "encode", lambda self, query, texts: self.base.encode(texts).mean(0))
    assert not claim.faithful()
