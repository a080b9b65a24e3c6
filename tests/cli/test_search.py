"""`paceline search` and `paceline find`: what is found, what is refused, and what the cache may keep."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from _command import Call, sentence

pytest.importorskip("bm25s")

from paceline.cli import find, search
from paceline.core.discovery import cards
from paceline.core.errors import PacelineError
from paceline.core.spec import parse
from paceline.retrieve._passages import read_folder, split
from paceline.retrieve.dense import Dense, Trigrams
from paceline.retrieve.hyde import HyDE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "notes"
    (place / "deep").mkdir(parents=True)
    (place / "kettle.txt").write_text("Copper kettles boil water.\n\nThey shine.\n")
    (place / "deep" / "meadow.md").write_text(
        "\n".join(f"line {i} of the meadow" for i in range(1, 101)) + "\nviolets\n"
    )
    return place


def hits(call: Call, *args: object) -> list[dict[str, object]]:
    answer = call("search", *args, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_the_passage_is_shown_with_its_file_and_lines(folder: Path, call: Call) -> None:
    found = hits(call, folder, "copper kettle shines boil")
    assert [hit["file"] for hit in found] == ["kettle.txt"]
    assert (found[0]["first"], found[0]["last"]) == (1, 3) and float(str(found[0]["score"])) > 0
    assert hits(call, folder, "violets", "-k", 1)[0]["last"] == 101
    answer = call("search", folder, "violets", "-k", 1)
    assert answer.code == 0 and "deep/meadow.md:" in answer.out and "violets" in answer.out
    assert "No passage holds a word" in call("search", folder, "zebra").out


def test_the_index_is_kept_until_a_file_changes(folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    index = search.Retriever.index
    monkeypatch.setattr(search.Retriever, "index", lambda self, texts: (made.append(len(texts)), index(self, texts))[1])
    first = hits(call, folder, "copper")
    assert hits(call, folder, "copper") == first and len(made) == 1
    (folder / "new.txt").write_text("Copper again")
    assert len(hits(call, folder, "copper")) == 2 and len(made) == 2
    (folder / "new.txt").unlink()
    assert hits(call, folder, "copper") == first and len(made) == 3
    for path in (folder.parent / "cache" / "search").iterdir():
        path.write_bytes(b"damaged")
    assert hits(call, folder, "copper") == first and len(made) == 4


def test_what_is_not_text_is_named_and_left_out(folder: Path, call: Call) -> None:
    (folder / "empty.txt").touch()
    (folder / "picture.png").write_bytes(b"copper\0\1\2")
    (folder / "latin.txt").write_bytes(b"copper caf\xe9")
    (folder / ".hidden.txt").write_text("copper")
    answer = call("search", folder, "copper", "--json")
    assert answer.code == 0 and [hit["file"] for hit in json.loads(answer.out)] == ["kettle.txt"]
    for name in ("empty.txt (empty)", "picture.png (binary)", "latin.txt (not UTF-8)"):
        assert name in answer.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nowhere", "x"), "does not exist"),
        (("notes/kettle.txt", "x"), "is a file"),
        (("bare", "x"), "holds no text"),
        (("binary", "x"), "a.bin is binary"),
        (("notes", " "), "query is empty"),
        (("notes", "x" * 20_000), "20,000 characters"),
        (("notes", "x", "-k", "0"), "-k must be at least 1"),
        (("notes", "x", "--with", "bm26"), "Did you mean 'bm25'?"),
        (("notes", "x", "--with", "greedy"), "no way to search"),
        (("notes", "x", "--with", "bm25(k2=1)"), "no argument 'k2'"),
        (("notes", "x", "--with", "bm25(b=7.0)"), "b from 0 to 1"),
        (("notes", "x", "--with", "dense(encoder='nowhere')"), "no model of sentence-transformers"),
        (("notes", "x", "--with", "hyde(write='me')"), "no argument 'write'"),
        (("notes", "x", "--model", "smollm2"), "leave it out"),
    ],
)
def test_a_mistake_ends_in_one_sentence(
    args: tuple[str, ...], words: str, folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("bare").mkdir()
    Path("binary").mkdir()
    Path("binary", "a.bin").write_bytes(b"\0" * 9)
    assert words in sentence(call("search", *args))


def test_other_ways_to_search(folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def retriever(spec: object, model: str) -> object:
        base = Dense(Trigrams())
        return base if str(spec) == "dense" else HyDE(base, lambda *_: ["a line of the meadow"], documents=1)

    monkeypatch.setattr(search, "_retriever", retriever)
    assert hits(call, folder, "kettle", "--with", "dense")[0]["file"] == "kettle.txt"
    assert hits(call, folder, "field", "--with", "hyde")[0]["file"] == "deep/meadow.md"


@pytest.mark.parametrize(("words", "overlap"), [(12, 0), (12, 5), (3, 1), (200, 30)])
def test_passages_hold_every_line_and_overlap(words: int, overlap: int) -> None:
    text = "\n".join(" ".join(f"w{i}-{j}" for j in range(i % 7)) for i in range(60)) + "\n" + "long " * 41
    found = split(text, words, overlap)
    lines = text.splitlines()
    held = [word for _, _, body in found for word in body.split()]
    assert set(held) == set(text.split()) and len(found) < len(lines) + 41
    for first, last, body in found:
        assert 1 <= first <= last <= len(lines) and len(body.split()) <= max(words, 6)
    shared = len(held) - len(text.split())
    assert (shared > 0) == (overlap > 0 and len(found) > 1) or words == 200
    with pytest.raises(PacelineError, match="smaller overlap"):
        split(text, 5, 5)


def test_links_in_circles_are_not_followed(folder: Path) -> None:
    (folder / "again").symlink_to(folder)
    assert {passage.file for passage in read_folder(folder).passages} == {"kettle.txt", "deep/meadow.md"}


@pytest.mark.parametrize(
    ("problem", "method"),
    [
        ("forgets the middle of long documents", "window"),
        ("the text repeats itself", "contrastive"),
        ("search without relevance labels", "hyde"),
        ("state-space model", "s4"),
        ("answers must be valid JSON", "grammar"),
    ],
)
def test_a_problem_finds_its_method(problem: str, method: str, call: Call) -> None:
    answer = call("find", problem, "--json")
    found = json.loads(answer.out)
    assert answer.code == 0 and method in [entry["method"] for entry in found] and len(found) <= 5
    assert all(entry["try"].startswith("paceline ") and entry["verdict"] for entry in found)


def test_what_is_told_to_try_exists_and_names_the_method() -> None:
    entries = find.known()
    assert {(card.family, card.method) for card in cards()} <= {(entry.family, entry.method) for entry in entries}
    for entry in entries:
        assert parse(entry.method) and entry.method in find.how_to_try(entry)
    assert any(entry.claim for entry in entries) and any(entry.effect for entry in entries)


def test_the_ranking_is_bm25_and_fusion_is_of_ranks() -> None:
    def entry(text: str) -> find.Entry:
        return find.Entry("decode", "x", "", (), "", "", "", text)

    entries = [entry("zebras run"), entry("a zebra and zebras and more"), entry("lions sleep")]
    assert find.by_words("zebra", entries) == [1, 0] and find.by_words("okapi", entries) == []
    assert find.merged([2, 0], [0, 1]) == [0, 2, 1]


def test_finding_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, atexit; from paceline.cli import main\n"
        "atexit.register(lambda: print([m for m in ('torch', 'numpy') if m in sys.modules], file=sys.stderr)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "find", "slow"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "[]\n") and "try: paceline" in done.stdout


@pytest.mark.parametrize(
    ("args", "words"), [(("",), "problem is empty"), (("x", "-k", "0"), "-k must be"), (("x" * 20_000,), "20,000")]
)
def test_find_refuses_in_a_sentence(args: tuple[str, ...], words: str, call: Call) -> None:
    assert words in sentence(call("find", *args))


def test_a_problem_that_nothing_speaks_of(call: Call) -> None:
    answer = call("find", "qqqq zzzz")
    assert answer.code == 0 and "try other words" in answer.out


def test_a_claim_is_read_without_running_it() -> None:
    assert (
        find._claim(ast.parse('import nowhere\nCLAIM = ("a " "b")')) == "a b" and find._claim(ast.parse("x = 1")) == ""
    )
