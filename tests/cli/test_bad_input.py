"""What a user can get wrong ends in one sentence that names the thing, a non-zero exit, and nothing lost."""

import errno
import os
import sys
from pathlib import Path

import pytest
from _command import SMALL, TINY, Call, records, sentence

ON_TEXT = ("--text", "notes.txt", *SMALL, "--seeds", "1", "--out", "out")
ON_RECALL = ("--task", "recall", *TINY, "--seeds", "1", "--out", "out")
WRITERS = [("race", "ema", *ON_TEXT), ("race", "ema", *ON_RECALL), ("train", "ema", *ON_TEXT[:6])]
INJECTION = "__import__('os').system('touch broken-in')"


@pytest.mark.parametrize("command", ["race", "train"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("note.txt", ("'note.txt'", "Did you mean 'notes.txt'?")),
        ("nowhere/else.txt", ("'nowhere/else.txt'", "check the path")),
        ("", ("''", "check the path")),
        ("empty.txt", ("'empty.txt' is empty",)),
        ("blank.txt", ("'blank.txt' is empty",)),
        ("tiny.txt", ("bytes", "give more")),
        ("folder", ("'folder' holds no text file", ".txt")),
        ("*.nothing", ("*.nothing",)),
        ("notes.txt/inside", ("'notes.txt/inside'",)),
        ("null\0byte", ("cannot be read", "check path")),
        ("pickle.pkl", ("'pickle.pkl' is a pickle",)),
    ],
)
def test_text_that_cannot_be_read_is_named(command: str, text: str, words: tuple[str, ...], call: Call) -> None:
    Path("empty.txt").touch()
    Path("blank.txt").write_text(" \n" * 3000)
    Path("tiny.txt").write_text("hello world")
    Path("folder").mkdir()
    Path("folder", "picture.bin").write_bytes(b"1" * 9000)
    Path("pickle.pkl").write_bytes(b"\x80\x04N." * 1000)
    refusal = sentence(call(command, "ema", "--text", text, *SMALL, "--out", "out"))
    assert all(word in refusal for word in words), refusal
    assert not records(Path("out"))


@pytest.mark.parametrize("name", ["a\nb.txt", "a\r\x1b[2Jb.txt", "\u202etxt.a", os.fsdecode(b"caf\xe9"), "n" * 90_000])
def test_a_name_neither_breaks_the_sentence_nor_commands_the_terminal_nor_fills_it(name: str, call: Call) -> None:
    refusal = sentence(call("race", "ema", "--text", name, *SMALL, "--out", "out"))
    assert refusal.isprintable() and len(refusal) < 1100, refusal
    refusal = sentence(call("generate", name, "--prompt", "x"))
    assert refusal.isprintable() and len(refusal) < 1100, refusal


def test_after_a_mistake_the_same_folder_takes_the_right_command(call: Call) -> None:
    Path("empty.txt").touch()
    sentence(call("train", "ema", "--text", "empty.txt", *SMALL, "--out", "out"))
    sentence(call("train", "ema", "--text", "notes.txt", *SMALL, "--length", "40000", "--batch", "1", "--out", "out"))
    assert call("train", "ema", "--text", "notes.txt", *SMALL, "--out", "out").code == 0


def test_a_file_without_permission_to_read_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open

    def guarded(path: object, *args: object, **kwargs: object) -> object:
        if str(path) == "notes.txt":  # chmod would not stop root
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", guarded)
    refusal = sentence(call("race", "ema", *ON_TEXT))
    assert "'notes.txt' cannot be read (Permission denied)" in refusal


@pytest.mark.parametrize(
    ("contestant", "words"),
    [
        ("seqbot", ("'seqbot'", "Did you mean 'seqboat'?")),
        ("recall", ("'recall' in mixers",)),
        ("_contract", ("'_contract'",)),
        ("../mixers/ema", ("'../mixers/ema'", "write a name")),
        ("attention(windw=4)", ("'windw'", "Did you mean 'window'?")),
        ("attention(d_model=8)", ("'d_model'", "it takes heads")),
        ("attention(window='x')", ("window='x'", "int")),
        ("attention(window=2.5)", ("window=2.5", "int")),
        ("attention(window=True)", ("window=True", "int")),
        ("attention(window=10**9)", ("10**9", "literals")),
        ("attention(window=0)", ("window=0", "at least 1")),
        ("attention(window=4, window=8)", ("'window'",)),
        ("attention(heads=0)", ("heads=0",)),
        ("attention(heads=-1)", ("heads=-1",)),
        ("attention(heads=7)", ("heads=7", "ask for more than")),  # its smallest width is too large for this budget
        ("attention(heads=4, kv_heads=3)", ("kv_heads=3",)),
        ("attention(8)", ("'attention'", "names")),
        ("attention(", ("'attention('",)),
        ("attention(**{'window': 4})", ("window",)),
        ("", ("''",)),
        ("ema\nema", (r"'ema\nema'",)),
        ("ema(dims=0)", ("dims=0",)),
        ("ema(dims=10000000000)", ("dims=10000000000", "ask for more than")),
        ("seqboat(memory=0)", ("memory=0",)),
        ("seqboat(temperature=0)", ("temperature=0",)),
        (INJECTION, ("__import__", "literals")),
        (f"attention(window={INJECTION})", ("__import__", "literals")),
        (f"attention(window=[{INJECTION}])", ("__import__", "literals")),
        ("(lambda: 1)()", ("lambda", "literals")),
        ("ema; print(1)", ("'ema; print(1)'", "literals")),
        ("(" * 300, ("((((", "literals")),
    ],
)
def test_a_contestant_that_cannot_be_built_is_refused_before_anything_runs(
    contestant: str, words: tuple[str, ...], call: Call
) -> None:
    refusal = sentence(call("race", "ema(dims=4)", contestant, *ON_TEXT))
    assert all(word in refusal for word in words), refusal
    assert sentence(call("train", contestant, "--text", "notes.txt", *SMALL, "--out", "model")) == refusal
    assert not Path("broken-in").exists() and not Path("model").exists() and not records(Path("out"))


@pytest.mark.parametrize("twice", [("ema", "ema"), ("attention", "attention()"), ("ema(dims=4)", "ema( dims = 4 )")])
def test_a_contestant_named_twice_is_refused(twice: tuple[str, str], call: Call) -> None:
    assert "once" in sentence(call("race", *twice, *ON_RECALL))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tokens", "10"), ("budget of 10 tokens", "too small for one step", "at least")),
        (("--tokens", "0"), ("--tokens", "not 0")),
        (("--tokens", "-5"), ("--tokens", "not -5")),
        (("--params", "10"), ("parameters", "more than 10")),
        (("--params", "0"), ("--params", "not 0")),
        (("--params", "-5"), ("--params", "not -5")),
    ],
)
@pytest.mark.parametrize("command", ["race", "train"])
def test_a_budget_that_pays_for_nothing_is_refused(
    command: str, options: tuple[str, ...], words: tuple[str, ...], call: Call
) -> None:
    refusal = sentence(call(command, "ema", "--text", "notes.txt", *SMALL, *options, "--out", "out"))
    assert all(word in refusal for word in words), refusal
    assert not records(Path("out"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--layers", "0"), "--layers must be at least 1, not 0"),
        (("--layers", "2147483648"), "--layers must be at most 1,000, not 2,147,483,648"),
        (("--batch", "-1"), "--batch must be at least 1, not -1"),
        (("--length", "0"), "--length must be at least 1, not 0"),
        (("--length", "40000", "--batch", "1", "--tokens", "99999"), "smaller length"),
        (("--lr", "0"), "lr=0.0"),
        (("--lr", "nan"), "lr=nan"),
        (("--lr", "1e30"), "lower the learning rate"),
    ],
)
def test_train_refuses_impossible_settings(options: tuple[str, ...], words: str, call: Call) -> None:
    refusal = sentence(call("train", "ema", "--text", "notes.txt", *SMALL, *options, "--out", "model"))
    assert words in refusal and not Path("model/model.safetensors").exists()


def test_seeds_below_one_are_refused(call: Call) -> None:
    assert "--seeds must be at least 1, not 0" in sentence(call("race", "ema", *ON_RECALL, "--seeds", "0"))
    assert "--seeds must be at least 1, not -3" in sentence(call("race", "ema", *ON_RECALL, "--seeds", "-3"))


def test_more_seeds_than_can_be_listed_are_refused(call: Call) -> None:
    refusal = sentence(call("race", "ema", *ON_RECALL, "--seeds", "2000000000"))
    assert "--seeds must be at most 10,000, not 2,000,000,000" in refusal and not Path("out").exists()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("recal", ("'recal' in data", "Did you mean 'recall'?")),
        ("text", ("--text FILE",)),
        ("seqboat", ("'seqboat' in data",)),
        ("", ("''",)),
        ("recall(pair=3)", ("'pair'", "Did you mean 'pairs'?")),
        ("recall(pairs='a')", ("pairs='a'", "int")),
        ("recall(pairs=0)", ("pairs=0",)),
        ("recall(pairs=0x" + "f" * 5000 + ")", ("pairs=0xfff", "literals")),
        ("recall(pairs=9, keys=8)", ("pairs=9", "keys=8")),
        ("recall(stretch=1000000000000)", ("too small for one step",)),
        ("recall(keys=1000000000)", ("1000000009", "parameters")),
        (INJECTION, ("__import__", "literals")),
    ],
)
def test_a_task_that_cannot_be_made_is_refused(task: str, words: tuple[str, ...], call: Call) -> None:
    refusal = sentence(call("race", "ema", *ON_RECALL, "--task", task))
    assert all(word in refusal for word in words), refusal
    assert not Path("broken-in").exists() and not Path("out").exists()


def test_text_and_a_task_together_are_refused(call: Call) -> None:
    assert "--text or --task" in sentence(call("race", "ema", "--text", "notes.txt", "--task", "recall"))


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("out", ["a-file", "a-file/inside", "/proc/nowhere"])
def test_an_output_folder_that_cannot_be_is_named(command: tuple[str, ...], out: str, call: Call) -> None:
    if out == "/proc/nowhere" and sys.platform != "linux":
        pytest.skip("only Linux has a /proc in which nobody can make a folder")
    Path("a-file").write_text("precious")
    assert out in sentence(call(*command, "--out", out))
    assert Path("a-file").read_text() == "precious"


@pytest.mark.parametrize("command", WRITERS)
def test_a_full_disk_ends_in_a_sentence(command: tuple[str, ...], call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("paceline.core.files.os.fsync", full)
        assert "No space left on device" in sentence(call(*command, "--out", "out"))
    assert not records(Path("out")) and call(*command, "--out", "out").code == 0  # once there is room again


def test_a_disk_that_fills_up_at_the_very_end_keeps_the_cells(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("paceline.race.run.write_json", full)
        answer = call("race", "ema", *ON_RECALL)
    assert (answer.code, answer.err) == (
        1, "paceline: The system refused: No space left on device (out/result.json). What was finished is kept.\n",
    )  # fmt: skip
    finished = records(Path("out"))
    assert finished and all(record["status"] == "done" for record in finished.values())
    assert call("race", "ema", *ON_RECALL).code == 0 and Path("out/result.json").exists()
