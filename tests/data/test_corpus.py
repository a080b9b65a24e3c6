"""Facts about `prepare` and `open_corpus`: who is held out, what is written, what is refused."""

import errno
import hashlib
import json
import os
import random
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.core.errors import PacelineError
from paceline.data._corpus import default_documents, open_corpus, prepare
from paceline.data._reader import Document


def documents(*sizes: int, seed: int = 0) -> list[Document]:
    """Different documents of these sizes in bytes; no NUL in them, so that a text splits back into its documents."""
    rng = random.Random(seed)
    return [Document(f"d{i}", bytes(rng.choices(range(1, 256), k=size))) for i, size in enumerate(sizes)]


def parts(text: np.ndarray) -> list[bytes]:
    return text.tobytes().split(b"\0")


def report(corpus) -> dict:
    return json.loads((corpus.folder / "corpus.json").read_text())


def refusal(action, *args, **options) -> str:
    with pytest.raises(PacelineError) as caught:
        action(*args, **options)
    return str(caught.value)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 2000), min_size=8, max_size=30), st.integers(), st.floats(0.05, 0.5), st.randoms())
def test_the_split_is_a_partition_that_the_seed_decides_and_the_order_does_not(
    tmp_path_factory, sizes, seed, share, rng
):
    given_documents = documents(4000, 4000, *sizes)
    corpus = prepare(given_documents, tmp_path_factory.mktemp("c"), heldout=share, seed=seed)
    contents = list(dict.fromkeys(document.content for document in given_documents))
    if report(corpus)["rule"] == "by document":
        train, held = parts(corpus.train), parts(corpus.heldout)
        assert sorted(train + held) == sorted(contents)  # each document once, on one side
        assert [content for content in contents if content in held] == held  # in the order of input
        assert [content for content in contents if content in train] == train
        assert sum(map(len, held)) >= share * sum(map(len, contents)) or len(train) == 1
    else:
        assert (parts(corpus.train), parts(corpus.heldout)) == cut(contents, share)
    again = prepare(given_documents, tmp_path_factory.mktemp("c"), heldout=share, seed=seed)
    assert again.digest == corpus.digest and again.names == corpus.names
    rng.shuffle(given_documents)
    shuffled = prepare(given_documents, tmp_path_factory.mktemp("c"), heldout=share, seed=seed)
    assert report(shuffled)["rule"] == report(corpus)["rule"]
    assert sorted(parts(shuffled.heldout)) == sorted(parts(corpus.heldout))
    assert sorted(parts(shuffled.train)) == sorted(parts(corpus.train))


def test_held_out_is_the_share_asked_for_and_another_seed_takes_other_documents(tmp_path):
    many = documents(*[100] * 300)
    corpus = prepare(many, tmp_path / "a")
    assert report(corpus)["heldout_documents"] == len(corpus.names) == len(parts(corpus.heldout)) == 30
    assert set(corpus.names) != set(prepare(many, tmp_path / "b", seed=1).names)


def test_what_is_written(tmp_path):
    many = documents(*[100] * 300)
    corpus = prepare(
        [*many, many[7], Document("copy", many[9].content), Document("blank", b"")], tmp_path / "new" / "c"
    )
    assert corpus.folder == tmp_path / "new" / "c"
    assert sorted(path.name for path in corpus.folder.iterdir()) == ["corpus.json", "heldout.u8", "train.u8"]
    facts = report(corpus)
    assert (facts["rule"], facts["documents"], facts["duplicates"]) == ("by document", 300, 2)
    assert facts["options"] == {"heldout": 0.1, "seed": 0, "limit": None}
    for name, text in (("train", corpus.train), ("heldout", corpus.heldout)):
        content = (corpus.folder / f"{name}.u8").read_bytes()
        assert facts[name] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert isinstance(text, np.memmap) and text.dtype == np.uint8 and text.tobytes() == content
        with pytest.raises(ValueError, match="read-only"):
            text[0] = 1
    by_name = {document.name: document.content for document in many}
    assert [by_name[name] for name in corpus.names] == parts(corpus.heldout)


def test_only_the_first_hundred_names_are_kept(tmp_path):
    corpus = prepare(documents(*[100] * 600), tmp_path, heldout=0.25)
    assert report(corpus)["heldout_documents"] == 150 and len(corpus.names) == 100


def test_open_gives_what_prepare_gave(tmp_path):
    made = prepare(documents(*[100] * 300), tmp_path)
    opened = open_corpus(tmp_path)
    assert (opened.folder, opened.names, opened.digest) == (made.folder, made.names, made.digest)
    assert opened.train.tobytes() == made.train.tobytes() and opened.heldout.tobytes() == made.heldout.tobytes()


def cut(contents: list[bytes], share: float) -> tuple[list[bytes], list[bytes]]:
    """What the rule "by tail" makes of documents: heads to train on, tails that are not empty."""
    at = [len(content) - int(len(content) * share) for content in contents]
    heads = [content[:cut] for content, cut in zip(contents, at, strict=True)]
    return heads, [content[cut:] for content, cut in zip(contents, at, strict=True) if content[cut:]]


@pytest.mark.parametrize("sizes", [(10_000,), (200_000, 600, 300), (1_600, 1_500)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_document_or_a_giant_or_a_side_too_small_is_cut_by_tail(tmp_path, sizes, seed):
    few = documents(*sizes)
    corpus = prepare(few, tmp_path, seed=seed)
    assert report(corpus)["rule"] == "by tail" and corpus.names == tuple(document.name for document in few)
    assert (parts(corpus.train), parts(corpus.heldout)) == cut([document.content for document in few], 0.1)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((5_000, 5_001), {("by document", 5_000), ("by tail", 1_001)}),  # the longer one would be more than half
        ((100_000, 3_000, 2_000), {("by document", 5_001), ("by tail", 10_502)}),  # never all: the giant stays
    ],
)
def test_the_seed_ranks_documents_and_a_share_that_is_unfair_is_cut(tmp_path, sizes, expected):
    made = [prepare(documents(*sizes), tmp_path / str(seed), seed=seed) for seed in range(12)]
    assert {(report(corpus)["rule"], len(corpus.heldout)) for corpus in made} == expected


def test_a_document_too_short_to_cut_is_trained_on(tmp_path):
    corpus = prepare(documents(100_000, 5, 20), tmp_path)
    assert corpus.names == ("d0", "d2") and [len(part) for part in parts(corpus.train)] == [90_000, 5, 18]


@pytest.mark.parametrize("limit", [3_000, 10_000, 10_050, 30_000, 40_000])
def test_limit_counts_bytes_of_new_documents_and_cuts_the_last(tmp_path, limit):
    many = documents(*[100] * 300)
    corpus = prepare([*many[:150], *many], tmp_path, limit=limit, heldout=0.2)
    assert sum(map(len, parts(corpus.train) + parts(corpus.heldout))) == min(limit, 30_000)
    kept = b"".join(document.content for document in many)[:limit]
    assert all(part in kept for part in parts(corpus.train) + parts(corpus.heldout))


def test_a_copy_that_the_limit_would_cut_is_still_a_duplicate(tmp_path):
    many = documents(*[1_000] * 10)
    corpus = prepare([*many, many[3]], tmp_path, limit=10_500)
    assert report(corpus)["duplicates"] == 1 and len(corpus.train) + len(corpus.heldout) == 10_000 + 8


def test_the_limit_stops_reading(tmp_path):
    def endless():
        yield from documents(*[1_000] * 10)
        raise AssertionError("read on")

    assert report(prepare(endless(), tmp_path, limit=10_000))["documents"] == 10


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((), "0 bytes to train on and 0 held out, but 2,000 and 256 are needed"),
        ((2_200,), "1,980 bytes to train on and 220 held out"),
        ((2_500,), "2,250 bytes to train on and 250 held out"),
        ((300,) * 5, "1,350 bytes to train on and 150 held out"),
    ],
)
def test_too_little_text_says_how_much_there_is_and_leaves_the_old_corpus(tmp_path, sizes, says):
    old = prepare(documents(*[100] * 300), tmp_path)
    assert says in refusal(prepare, documents(*sizes), tmp_path)
    assert open_corpus(tmp_path).digest == old.digest and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("options", [{"heldout": 0}, {"heldout": 0.6}, {"heldout": float("nan")}, {"limit": 2_000}])
def test_options_out_of_range(tmp_path, options):
    message = refusal(prepare, documents(10_000), tmp_path, **options)
    assert f"{next(iter(options))}={next(iter(options.values()))}" in message


def test_a_full_disk_leaves_the_old_corpus(tmp_path, monkeypatch):
    old = prepare(documents(*[100] * 300), tmp_path)

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        message = refusal(prepare, documents(*[100] * 200), tmp_path)
    assert f"'{tmp_path}'" in message and "No space left on device" in message
    assert open_corpus(tmp_path).digest == old.digest and len(list(tmp_path.iterdir())) == 3
    (tmp_path / "file").write_bytes(b"")
    assert "cannot take the corpus" in refusal(prepare, documents(10_000), tmp_path / "file")


def test_an_error_of_the_reader_passes_and_leaves_nothing_behind(tmp_path):
    def broken():
        yield from documents(10_000)
        raise PacelineError("Line 3 is broken.")

    assert refusal(prepare, broken(), tmp_path) == "Line 3 is broken."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train", "heldout"])
def test_open_refuses_a_text_that_is_missing_truncated_or_changed(tmp_path, name):
    prepare(documents(*[100] * 300), tmp_path)
    path = tmp_path / f"{name}.u8"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert f"'{path}' has {len(content) - 1:,} bytes instead of {len(content):,}" in refusal(open_corpus, tmp_path)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert f"'{path}' was changed" in refusal(open_corpus, tmp_path)
    path.unlink()
    assert "No such file" in refusal(open_corpus, tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"train": 1}', "\xff"])
def test_open_refuses_a_broken_or_missing_corpus_json(tmp_path, content):
    assert "holds no readable corpus" in refusal(open_corpus, tmp_path)
    (tmp_path / "corpus.json").write_bytes(content.encode("latin-1"))
    assert "corpus.json' is broken: prepare the corpus again" in refusal(open_corpus, tmp_path)


def test_memory_stays_near_the_largest_document(tmp_path):
    size = 1_000_000
    stream = (Document(str(i), i.to_bytes(2, "big") * (size // 2)) for i in range(40))
    tracemalloc.start()
    prepare(stream, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * size  # of 40


def test_the_default_text_is_there_and_the_same_each_time():
    first, again = list(default_documents()), list(default_documents())
    assert first == again and len({document.name for document in first}) == len(first)
    topics = [document for document in first if document.name.startswith("pydoc:")]
    sources = [document for document in first if document.name.startswith("stdlib:")]
    assert first == topics + sources and all(
        group == sorted(group, key=lambda document: document.name) for group in (topics, sources)
    )
    assert sum(len(document.content) for document in topics) > 300_000
    assert sum(len(document.content) for document in sources) > 3_000_000
    assert "stdlib:argparse.py" in {document.name for document in sources}
    assert not any("_sysconfigdata" in document.name for document in sources)


def test_a_python_without_its_topics(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert "give a text of your own" in refusal(lambda: list(default_documents()))
