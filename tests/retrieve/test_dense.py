"""Exact search, what folders are refused, and the encoder that nobody trained."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.retrieve._best import best
from paceline.retrieve._kept import keep, kept
from paceline.retrieve._sentences import check
from paceline.retrieve._unsupervised import TokenMeans
from paceline.retrieve.dense import Dense, Trigrams


class Fixed:
    """Each text is the number of a row."""

    def __init__(self, vectors: torch.Tensor) -> None:
        self.vectors = functional.normalize(vectors, dim=1)

    def fit(self, documents: object) -> None:
        pass

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return self.vectors[[int(text) for text in texts]]


@pytest.mark.parametrize("lot", [1, 500, 2**24])
def test_search_equals_brute_force(lot: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.retrieve.dense.LOT", lot)
    encoder = Fixed(torch.randn(150, 16, generator=torch.Generator().manual_seed(0)))
    search = Dense(encoder)
    search.index([str(i) for i in range(100)])
    hits = search.search([str(i) for i in range(100, 150)], 7)
    scores = encoder.vectors[100:].double().numpy() @ encoder.vectors[:100].double().numpy().T
    assert hits.ids.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :7].tolist()
    assert close(hits.scores, -np.sort(-scores, axis=1)[:, :7], "float32")


def test_of_equal_scores_the_first_are_kept_and_come_first() -> None:
    scores = np.array([[1.0, 3, 2, 2, 2, 3, 0], [0.0, 0, 0, 0, 0, 0, 0], [5.0, 4, 3, 2, 1, 0, -1]])
    assert best(scores, 4).ids.tolist() == [[1, 5, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize("kinds", [2, 40, 10**6])
@pytest.mark.parametrize(("size", "k"), [(20, 20), (700, 3), (5000, 10), (100_003, 7)])
def test_the_best_are_those_of_a_stable_sort(kinds: int, size: int, k: int) -> None:
    scores = np.random.default_rng(size).integers(0, kinds, (3, size)).astype(np.float32)
    hits = best(scores, k)
    assert hits.ids.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    assert hits.scores.tolist() == np.take_along_axis(scores, hits.ids, axis=1).tolist()


def test_the_encoder_without_labels_whitens_its_documents() -> None:
    table = torch.randn(64, 12, generator=torch.Generator().manual_seed(1)) + 3
    draws = np.random.default_rng(0)
    documents = [" ".join(map(str, draws.integers(0, 64, 9))) for _ in range(200)]
    encoder = TokenMeans(table, lambda text: [int(word) for word in text.split()], width=8)
    encoder.fit(documents)
    raw = (encoder._means(documents) - encoder.mean) @ encoder.whiten
    assert torch.allclose(raw.T @ raw / len(raw), torch.eye(8), atol=1e-3)
    assert torch.allclose(encoder(documents).norm(dim=1), torch.ones(200), atol=1e-5)
    counts = np.bincount([int(w) for d in documents for w in d.split()], minlength=64)
    ids = [int(w) for w in documents[0].split()]
    weight = [1e-3 / (1e-3 + counts[i] / counts.sum()) for i in ids]
    expected = sum(w * table[i] for w, i in zip(weight, ids, strict=True)) / sum(weight)
    assert torch.allclose(encoder._means(documents[:1])[0], expected, atol=1e-4)


def test_few_or_equal_documents_and_empty_texts_still_give_numbers() -> None:
    encoder = TokenMeans(torch.randn(9, 4), lambda text: [len(word) for word in text.split()])
    for documents in (["a bb ccc"], ["a"] * 5, ["", "a bb", "ccc"]):
        encoder.fit(documents)
        assert torch.isfinite(encoder([*documents, ""])).all()


@pytest.mark.parametrize(
    ("modules", "file", "words"),
    [
        ([{"type": "evil.module.Thing"}], "model.safetensors", "code of its own"),
        ([{"type": "sentence_transformers.models.Transformer"}], "pytorch_model.bin", "holds a pickle"),
        ([{"type": 3}], "model.safetensors", "no model of sentence-transformers"),
        ("{", "model.safetensors", "no model of sentence-transformers"),
    ],
)
def test_a_folder_that_could_run_code_is_refused(tmp_path: Path, modules: object, file: str, words: str) -> None:
    (tmp_path / "modules.json").write_text(modules if isinstance(modules, str) else json.dumps(modules))
    (tmp_path / file).write_bytes(b"\x80\x04")
    with pytest.raises(PacelineError, match=words):
        check(tmp_path)
    with pytest.raises(PacelineError, match=words):
        Dense(str(tmp_path))


def test_a_kept_index_is_dropped_when_it_was_made_from_something_else_or_is_damaged(tmp_path: Path) -> None:
    search = Dense(Trigrams())
    search.index(["copper kettle", "violet meadow"])
    place = tmp_path / "index"
    assert kept(place, "a") is None
    keep(place, "a", *search.stored())
    found = kept(place, "a")
    assert (
        found is not None and np.array_equal(found[0]["vectors"], search.vectors.numpy()) and kept(place, "b") is None
    )
    arrays = place.with_suffix(".safetensors")
    whole = arrays.read_bytes()
    for content in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        arrays.write_bytes(content)
        assert kept(place, "a") is None
    arrays.write_bytes(whole)
    place.with_suffix(".json").write_text("[")
    assert kept(place, "a") is None


def test_minilm_finds_by_meaning() -> None:
    pytest.importorskip("sentence_transformers")
    try:
        search = Dense()
    except PacelineError as error:
        pytest.skip(str(error))
    search.index(["A feline rests on the rug.", "Stock prices fell sharply.", "The boat crossed the lake."])
    assert search.search(["cat lying on a carpet", "the market crashed", "sailing"], 1).ids.tolist() == [[0], [1], [2]]
