"""A flipped byte or a truncation in what a race keeps on disk: it is refused in a sentence, or made again."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline.core.errors import PacelineError
from paceline.data._corpus import open_corpus, prepare
from paceline.data._reader import Document
from paceline.data.text import Text
from paceline.lm.checkpoint import load_model
from paceline.race.contestant import Event, Model
from paceline.race.pool import Limits
from paceline.race.run import race

DOCUMENTS = [Document(f"d{i}", bytes((i * 7 + k * k) % 251 + 1 for k in range(300))) for i in range(20)]
FILES = ("train.u8", "heldout.u8", "corpus.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(DOCUMENTS, tmp_path / "corpus").folder


def flips(content: bytes, step: int = 1) -> Iterator[bytes]:
    for place in range(0, len(content), step):
        yield content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]


@pytest.mark.parametrize("name", FILES)
def test_no_flip_in_a_corpus_changes_a_byte_that_is_trained_or_measured_on(name: str, folder: Path) -> None:
    """Those in `corpus.json` that hit no size and no digest change no text, only what is told of it."""
    whole = open_corpus(folder)
    expected = (whole.digest, whole.train.tobytes(), whole.heldout.tobytes())
    content, refused, step = (folder / name).read_bytes(), 0, 1 if name == "corpus.json" else 23
    for damaged in flips(content, step):
        (folder / name).write_bytes(damaged)
        try:
            found = open_corpus(folder)
        except PacelineError as error:
            refused += 1
            assert "prepare the corpus again (delete its folder and repeat the command)." in str(error)
        else:
            assert (found.digest, found.train.tobytes(), found.heldout.tobytes()) == expected
    assert refused >= (150 if name == "corpus.json" else len(content) // 23)  # two digests of 64 and more


@pytest.mark.parametrize("name", FILES)
def test_no_truncated_file_of_a_corpus_is_read(name: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    for size in {0, 1, len(content) // 2, len(content) - 2}:
        (folder / name).write_bytes(content[:size])
        with pytest.raises(PacelineError, match=r"prepare the corpus again"):
            open_corpus(folder)


def test_a_corpus_json_nested_without_end_is_refused(folder: Path) -> None:
    (folder / "corpus.json").write_text("[" * 100_000)
    with pytest.raises(PacelineError, match=r"corpus\.json' is broken"):
        open_corpus(folder)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a finished race on text, and its result."""
    out = tmp_path_factory.mktemp("raced") / "out"
    prepare(DOCUMENTS, out / "corpus" / "it")
    return out, run(out)


def run(out: Path) -> dict[str, Any]:
    event = Event(Text(out / "corpus" / "it", 32), tokens=256, parameters=6000, batch=2)
    return race([Model("ema", layers=1, rates=(1e-2,))], [event], out=out, seeds=1, limits=Limits(1, memory=2**34))


def lasting(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("created", "sha256")}


@pytest.mark.parametrize("name", FILES)
def test_a_finished_race_whose_corpus_is_damaged_refuses_until_it_is_prepared_again(
    name: str, raced: tuple[Path, dict[str, Any]]
) -> None:
    out, result = raced
    path = out / "corpus" / "it" / name
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], next(flips(content))):
        path.write_bytes(damaged)
        with pytest.raises(PacelineError, match=r"prepare the corpus again \(delete its folder"):
            run(out)
    shutil.rmtree(path.parent)
    prepare(DOCUMENTS, path.parent)
    assert lasting(run(out)) == lasting(result)


def test_a_finished_race_writes_a_damaged_result_anew(raced: tuple[Path, dict[str, Any]]) -> None:
    out, result = raced
    content = (out / "result.json").read_bytes()
    for damaged in (b"", content[: len(content) // 2], json.dumps({**result, "answer": "forged"}).encode()):
        (out / "result.json").write_bytes(damaged)
        assert lasting(run(out)) == lasting(result) == lasting(json.loads((out / "result.json").read_bytes()))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "checksums.json"])
def test_a_damaged_model_of_a_race_does_not_replace_a_good_winner(
    name: str, raced: tuple[Path, dict[str, Any]]
) -> None:
    out, result = raced
    (path,) = out.glob(f"models/**/{name}")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], next(flips(content))):
        path.write_bytes(damaged)
        with pytest.raises(PacelineError, match="the same command runs it again"):
            run(out)
        load_model(out / "winner")
        assert run(out)["standings"] == result["standings"]  # its cell has run again, to the same model
        assert path.read_bytes() == content
