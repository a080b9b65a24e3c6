"""Fixtures of the command line's tests."""

from functools import partial
from pathlib import Path

import pytest
import torch
from _command import Call, write_notes
from _here import here

torch.set_num_threads(1)  # nothing here is large enough to share


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text in the current folder, which is empty but for it."""
    monkeypatch.chdir(tmp_path)
    return write_notes(tmp_path).relative_to(tmp_path)


@pytest.fixture
def call(notes: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`paceline ...` in this process and in the current folder."""
    return partial(here, monkeypatch, capfd)
