"""Fixtures of the command line's tests."""

import sys
from pathlib import Path

import pytest
import torch
from _command import Answer, Call, write_notes

from paceline import cli

torch.set_num_threads(1)  # nothing here is large enough to share


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text in the current folder, which is empty but for it."""
    monkeypatch.chdir(tmp_path)
    return write_notes(tmp_path).relative_to(tmp_path)


@pytest.fixture
def call(notes: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`paceline ...` in this process and in the current folder, through the same entry as the installed command."""

    def run(*args: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["paceline", *map(str, args)])
        capfd.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        written = capfd.readouterr()
        return Answer(code if isinstance(code, int) else 0, written.out, written.err)

    return run
