"""The command line in this process, where torch's import in one of its own would be too slow."""

import sys
from dataclasses import dataclass

import pytest

from paceline import cli


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *args: object) -> Answer:
    """`paceline ...` in this process and in the current folder, through the same entry as the installed command."""
    monkeypatch.setattr(sys, "argv", ["paceline", *map(str, args)])
    capfd.readouterr()
    code: object = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    written = capfd.readouterr()
    return Answer(code if isinstance(code, int) else 0, written.out, written.err)
