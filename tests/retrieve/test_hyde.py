"""The vector that HyDE searches by, what it asks of its writer, and what becomes of nothing."""

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.retrieve.dense import Dense, Trigrams
from paceline.retrieve.hyde import HyDE

DOCUMENTS = ["a bird that cannot fly", "keys and strings", "pictures made by light"]


def method(texts: list[str], **more: object) -> HyDE:
    made = HyDE(Dense(Trigrams()), lambda prompt, n, seed: texts, **more)  # type: ignore[arg-type]
    made.index(DOCUMENTS)
    return made


def test_the_vector_is_the_mean_over_query_and_texts() -> None:
    texts = ["black and white bird", "it swims"]
    made, f = method(texts), Trigrams()
    expected = (f(["penguin"])[0] + f(texts[:1])[0] + f(texts[1:])[0]) / 3
    assert torch.allclose(made.encode("penguin", texts), expected)
    hits = made.search(["penguin"], 3)
    scores = f(DOCUMENTS) @ expected
    assert hits.ids[0].tolist() == scores.argsort(descending=True).tolist()
    moved = 1 - torch.nn.functional.cosine_similarity(expected, f(["penguin"])[0], dim=0)
    assert made.meters() == pytest.approx({"moved": moved.item(), "written": 2.0}, abs=1e-6)


def test_the_writer_is_asked_as_the_authors_ask() -> None:
    asked: list[tuple[str, int, int]] = []

    def write(prompt: str, n: int, seed: int) -> list[str]:
        asked.append((prompt, n, seed))
        return ["light"] * n

    made = HyDE(Dense(Trigrams()), write, documents=3, seed=5)
    made.index(DOCUMENTS)
    made.search(["how {0} photographs %s come"], 1)
    prompt = "Please write a passage to answer the question.\nQuestion: how {0} photographs %s come\nPassage:"
    assert asked == [(prompt, 3, 5)]


@pytest.mark.parametrize("texts", [[], ["", "  \n"]])
def test_where_nothing_is_written_the_query_itself_is_searched(texts: list[str]) -> None:
    made = method(texts)
    plain = made.base.search(["strings"], 3)
    hits = made.search(["strings"], 3)
    assert hits.ids.tolist() == plain.ids.tolist() and hits.scores == pytest.approx(plain.scores, abs=1e-6)
    assert made.meters()["moved"] == pytest.approx(0, abs=1e-6)


def test_nonsense_is_refused() -> None:
    with pytest.raises(PacelineError, match="at least one document"):
        method([], documents=0)
    for prompt in ("no place", "{} and {}"):
        with pytest.raises(PacelineError, match="where the query goes"):
            method([], prompt=prompt)
