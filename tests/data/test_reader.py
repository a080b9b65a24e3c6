"""Facts about `read_documents`: what becomes a document, and what is refused with which sentence."""

import codecs
import csv
import json
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.core.errors import PacelineError
from paceline.data._reader import SUFFIXES, Document, read_documents

KINDS = pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
JUNK = bytes(range(256)) * 8


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def put(path: str, content: bytes | str = b"some text") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tree() -> None:
    for path in ("d/b.txt", "d/a/z.md", "d/a/deep/er/k.py", "d/c.rst", "d/.hidden.txt", "d/.git/x.txt", "d/pic.png"):
        put(path, path)
    put("d/r.jsonl", '{"text": "row"}')


def table(kind: str, rows: list[dict], path: str = "t") -> str:
    path = f"{path}.{kind}"
    if kind == "jsonl":
        return put(path, "".join(json.dumps(row) + "\n" for row in rows))
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        return path
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    return path


def read(*sources: str, field: str | None = None) -> list[tuple[str, bytes]]:
    return [(document.name, document.content) for document in read_documents(sources, field)]


def refusal(*sources: str, field: str | None = None) -> str:
    with pytest.raises(PacelineError) as caught:
        read(*sources, field=field)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.py", "a.TXT", "a.log", "noext", "a.json", "a[1].txt"])
def test_a_named_file_is_one_document_of_its_raw_bytes(name):
    put("a1.txt", "what the glob a[1].txt would match")
    content = b"caf\xe9 \xff\x00 \xe2\x82\xac\r\nend\r"
    assert read(put(name, content)) == [(name, content)]
    assert list(read_documents(name)) == [Document(name, content)]  # a plain string is one source


@pytest.mark.parametrize(("name", "body"), [("a.txt", b"x"), ("a.jsonl", b'{"text": "x"}'), ("a.csv", b"text\nx\n")])
def test_a_byte_order_mark_is_stripped(name, body):
    assert [content for _, content in read(put(name, codecs.BOM_UTF8 + body))] == [b"x"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("d", ["d/a/deep/er/k.py", "d/a/z.md", "d/b.txt", "d/c.rst", "d/r.jsonl:1"]),
        ("d/*.txt", ["d/b.txt"]),
        ("d/*", ["d/b.txt", "d/c.rst", "d/r.jsonl:1"]),
        ("d/**/*.md", ["d/a/z.md"]),
        ("**/*.[pm]*", ["d/a/deep/er/k.py", "d/a/z.md"]),
        ("d/**/er/*.py", ["d/a/deep/er/k.py"]),
        ("d/a/**", ["d/a/deep/er/k.py", "d/a/z.md"]),
        ("?/**/deep/**/*.py", ["d/a/deep/er/k.py"]),
    ],
)
def test_folders_and_globs_are_sorted_and_leave_out_hidden_and_foreign_files(tmp_path, pattern, names):
    tree()
    assert [name for name, _ in read(pattern)] == names
    for absolute in (str(tmp_path / pattern), f"~/{pattern}"):
        assert [name for name, _ in read(absolute)] == [str(tmp_path / name) for name in names]


def test_a_file_that_is_reached_twice_is_read_once_and_the_order_of_sources_is_kept(tmp_path):
    tree()
    os.symlink("b.txt", "d/link.txt")
    put("e/only.txt", "other")
    names = [name for name, _ in read("e/only.txt", "d/b.txt", "d", "e", "d/**/*.txt", str(tmp_path / "d" / "b.txt"))]
    assert names == ["e/only.txt", "d/b.txt", "d/a/deep/er/k.py", "d/a/z.md", "d/c.rst", "d/r.jsonl:1"]


@pytest.mark.parametrize("source", ["d", "d/**/*.txt", "**/*.txt"])
def test_loops_dangling_links_and_pipes_are_skipped_but_linked_folders_are_read(source):
    put("far/x.txt", "far")
    put("d/sub/y.txt", "near")
    for link, target in {
        "d/sub/up": "..",
        "d/self": ".",
        "d/far": "../far",
        "d/l.txt": "l.txt",
        "d/n.txt": "-",
    }.items():
        os.symlink(target, link)
    os.mkfifo("d/pipe.txt")
    assert sorted(content for _, content in read(source)) == [b"far", b"near"]


@KINDS
def test_each_row_is_a_document_of_the_field_chosen(kind):
    rows = [{"title": f"t{i}", "text": f'Zeile {i},\n"ä€"'} for i in range(5)]
    assert read(table(kind, rows)) == [(f"t.{kind}:{i + 1}", row["text"].encode()) for i, row in enumerate(rows)]
    assert [content for _, content in read(f"t.{kind}", field="title")] == [b"t0", b"t1", b"t2", b"t3", b"t4"]
    only = {"review": "good"} if kind == "csv" else {"id": 7, "review": "good", "score": 0.5}
    assert read(table(kind, [only])) == [(f"t.{kind}:1", b"good")]


@KINDS
def test_a_field_that_is_missing_or_open_to_choice_names_those_that_exist(kind):
    path = table(kind, [{"title": "a", "body": "b"}])
    assert "has 2 text fields: choose by --field among title, body, or leave the file out." in refusal(path)
    assert "has no field 'bodi'" in (message := refusal(path, field="bodi"))
    assert path in message and message.endswith("among title, body, or leave the file out. Did you mean 'body'?")


@KINDS
def test_blank_rows_and_nulls_are_no_documents(kind):
    texts = ["", "x", " \n", None, "y"]
    assert [content for _, content in read(table(kind, [{"text": text, "n": "1"} for text in texts]))] == [b"x", b"y"]
    assert f"'t.{kind}' is empty" in refusal(table(kind, [{"text": "", "n": "1"}, {"text": " \n", "n": "2"}]))


def test_what_csv_json_and_parquet_may_hold_besides():
    assert read(put("t.csv", b",review\r\n0,caf\xe9\r\n\r\n1,\xc3\xa9\r\n")) == [  # pandas' index, Latin-1, blank line
        ("t.csv:1", b"caf\xe9"),
        ("t.csv:2", b"\xc3\xa9"),
    ]
    assert read(put("t.jsonl", rb'{"text": "a\ud83d"}')) == [("t.jsonl:1", b"a\xed\xa0\xbd")]  # half an emoji
    columns = {"category": pa.array(["x", "y"]).dictionary_encode(), "raw": pa.array([b"x", b"y"])}
    pq.write_table(pa.table(columns), "t.parquet")
    assert read("t.parquet") == [("t.parquet:1", b"x"), ("t.parquet:2", b"y")]  # categories are strings, bytes are not
    pq.write_table(pa.table({**columns, "large": pa.array(["x", "y"], pa.large_string())}), "t.parquet")
    for name in ("category", "raw", "large"):
        assert read("t.parquet", field=name) == [("t.parquet:1", b"x"), ("t.parquet:2", b"y")]


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("a.txt", b"", "'a.txt' is empty"),
        ("a.txt", b" \n\t", "'a.txt' is empty"),
        ("t.csv", b"text\n", "'t.csv' is empty"),
        ("t.csv", JUNK, "'t.csv' is not CSV, it holds NUL bytes"),
        ("t.csv", b"text\nfine\nx,y\n", "Line 3 of 't.csv' is not CSV (2 columns where the header has 1)"),
        ("t.csv", b'text\nfine\n"open\n', "Line 3 of 't.csv' is not CSV"),
        ("t.csv", b'text\nfine\n"a"b\n', "Line 3 of 't.csv' is not CSV"),
        ("t.parquet", JUNK, "'t.parquet' is not Parquet"),
        ("t.parquet", b"", "'t.parquet' is not Parquet"),
        ("t.jsonl", b'{"text": "fine"}\n\n{"text": "x"\n', "Line 3 of 't.jsonl' is not a JSON object"),
        ("t.jsonl", b"plain words", "Line 1 of 't.jsonl' is not a JSON object (Expecting value)"),
        ("t.jsonl", b'["x"]', "Line 1 of 't.jsonl' is not a JSON object (no braces around it)"),
        ("t.jsonl", b'{"text": "\xff"}', "Line 1 of 't.jsonl' is not a JSON object ('utf-8' codec"),
        ("t.jsonl", b"[" * 100_000, "Line 1 of 't.jsonl' is not a JSON object"),
        ("t.jsonl", b'{"text": 5}', "Field 'text' in line 1 of 't.jsonl' is not text"),
        (
            "t.jsonl",
            b'{"body": "x"}\n{"other": "y"}',
            "'t.jsonl:2' has no field 'body': choose by --field among other, or",
        ),
        ("t.jsonl", b'{"n": 5}', "'t.jsonl:1' has no text fields"),
        *((name, b"harmless", f"'{name}' is a pickle") for name in ("a.pkl", "a.pt", "a.pth", "a.bin", "A.PT")),
        *(("a.txt", pickle.dumps(["x"], protocol), "can run code") for protocol in (2, 3, 4, 5)),
        ("t.jsonl", pickle.dumps(["x"]), "'t.jsonl' is a pickle"),
        *(("a.dat", head + b"rest", "unpack it") for head in (b"PK\x03\x04", b"\x1f\x8b", b"%PDF-", b"\xfd7zXZ\x00")),
    ],
)
def test_content_that_is_refused(path, content, says):
    assert says in refusal(put(path, content))


def test_parquet_that_is_cut_short_or_has_no_text_in_the_field():
    assert "'t.parquet' is not Parquet with text" in refusal(table("parquet", [{"text": ["x"]}]))
    put("t.parquet", Path(table("parquet", [{"text": "x" * 1000}])).read_bytes()[:-20])
    assert "'t.parquet' is not Parquet" in refusal("t.parquet")


def test_parquet_whose_column_is_not_named_in_utf_8():
    pq.write_table(pa.table({"text": ["x"], "other": ["y"]}), "t.parquet", store_schema=False)
    put("t.parquet", Path("t.parquet").read_bytes().replace(b"other", b"\xe5ther"))
    assert "'t.parquet' is not Parquet with text" in refusal("t.parquet")


def test_a_line_of_ten_megabytes_is_one_document():
    text = "\u202e<script> 👩" + "x" * 10_000_000
    for kind in ("jsonl", "csv", "parquet"):
        assert read(table(kind, [{"text": text}])) == [(f"t.{kind}:1", text.encode())]
    assert read(put("t.txt", text)) == [("t.txt", text.encode())]


def test_sources_that_are_not_there_are_refused_before_anything_is_read():
    put("d/corpus.txt")
    assert "No text was given" in refusal()
    assert refusal("d/corpsu.txt") == (
        "There is no file or folder 'd/corpsu.txt': check the path. Did you mean 'corpus.txt'?"
    )
    for source in ("nowhere/a.txt", "d/corpus.txt/x", "bad\0name"):
        with pytest.raises(PacelineError, match=source):
            read_documents(["d/corpus.txt", source])


@pytest.mark.parametrize("source", ["d", "d/*", "d/**/*.png", "nowhere/*.txt", "nowhere/**/*.txt"])
def test_a_folder_or_glob_without_text_lists_the_suffixes(source):
    put("d/pic.png")
    assert f"'{source}' holds no text file ({' '.join(SUFFIXES)})" in refusal(source)


def test_a_folder_is_empty_only_if_all_its_files_are():
    put("d/a.txt", "")
    assert "'d' is empty" in refusal("d")
    put("d/b.txt", "x")
    assert read("d") == [("d/b.txt", b"x")]


def test_pipes_devices_and_what_cannot_be_read_are_named(monkeypatch):
    put("d/a.txt")
    os.mkfifo("pipe.txt")
    os.symlink("loop.txt", "loop.txt")
    assert "'pipe.txt' is a pipe, device or socket" in refusal("pipe.txt")
    assert "'/dev/null' is a pipe, device or socket" in refusal("/dev/null")
    assert "'loop.txt' cannot be read" in refusal("loop.txt")

    def deny(path, *_args, **_options):
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patched:  # tests may run as root, whom no permission stops
        patched.setattr("builtins.open", deny)
        assert "'d/a.txt' cannot be read (Permission denied)" in refusal("d/a.txt")
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", deny)
        assert "'d' cannot be read (Permission denied)" in refusal("d")


def test_a_line_of_100_mb_and_a_csv_field_above_the_default_limit():
    put("t.jsonl", b'{"text": "' + b"x" * 100_000_000 + b'"}\n{"text": "next"}\n')
    assert [len(content) for _, content in read("t.jsonl")] == [100_000_000, 4]
    os.remove("t.jsonl")
    assert [len(content) for _, content in read(put("t.csv", b'text\n"' + b"x,\n" * 1_000_000 + b'"\n'))] == [3_000_000]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=6))
def test_jsonl_csv_and_parquet_give_the_same_documents(texts):
    texts = ["never blank", *texts]
    for kind in ("jsonl", "csv", "parquet"):
        path = table(kind, [{"n": "1", "text": text} for text in texts])
        assert [content for _, content in read(path)] == [text.encode() for text in texts if text.encode().strip()]


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["txt", "jsonl", "csv", "parquet"]))
def test_any_bytes_give_documents_or_one_error_that_names_the_file(content, kind):
    try:
        documents = read(put(f"any.{kind}", content))
    except PacelineError as error:
        assert f"any.{kind}" in str(error)
    else:
        assert documents and all(document for _, document in documents)
