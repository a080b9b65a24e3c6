"""Facts about atomic writes: the old file or the new one, never a mixture, and nothing left behind."""

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from paceline.core.files import sha256, write_atomic, write_json


def fail(*_args, **_options):
    raise OSError("No space left on device")


@pytest.mark.parametrize("content", [b"\x00\xff", "täxt\n", b"", ""])
def test_writes_bytes_and_text(tmp_path, content):
    path = tmp_path / "new" / "folder" / "file"
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_new_file_can_be_read_by_others(tmp_path):
    write_atomic(tmp_path / "file", "x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("target", [(os, "fsync"), (Path, "chmod"), (Path, "replace")], ids=lambda t: t[1])
@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_in_the_middle_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, target, existed):
    path = tmp_path / "file"
    if existed:
        write_atomic(path, "old")
    with monkeypatch.context() as patched:
        patched.setattr(*target, fail)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, "new" * 10_000)
    assert [p.read_text() for p in tmp_path.iterdir()] == (["old"] if existed else [])


def test_an_interrupt_cleans_up_too(tmp_path, monkeypatch):
    def interrupt(_handle):
        raise KeyboardInterrupt

    write_atomic(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_the_content_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, Path.replace

    def synced(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def replaced(self, target):
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_atomic(tmp_path / "file", "x")
    assert calls == ["file", "rename", "folder"]


def test_json_round_trips(tmp_path):
    value = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == value and text.endswith("}\n")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_is_not_json_is_refused_before_anything_is_written(tmp_path, bad):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "x.json", {"value": bad})
    assert [p.read_text() for p in tmp_path.iterdir()] == ["1\n"]


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1000)
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 1000).hexdigest()
