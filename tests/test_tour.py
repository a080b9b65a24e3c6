"""The tour goes through every family, and what it says of its lines' time is what was measured."""

import importlib.util
import json
import shlex
from pathlib import Path

import pytest

from paceline.core.discovery import FAMILIES, methods

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("tour", ROOT / "benchmarks" / "tour.py")
assert SPEC is not None and SPEC.loader is not None
TOUR = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(TOUR)
LINES = TOUR.lines()
STORED = json.loads((ROOT / "results" / "bench" / "tour.json").read_text(encoding="utf-8"))["lines"]
LONGEST = 180
"""Seconds."""


def test_every_family_that_has_a_method_has_a_line() -> None:
    assert set(LINES) == {family for family in FAMILIES if methods(family)}


@pytest.mark.parametrize("family", LINES)
def test_each_line_was_run_as_it_stands_within_three_minutes(family: str) -> None:
    stored = STORED[family]
    assert stored["command"] == LINES[family] and stored["exit"] == 0 and stored["seconds"] < LONGEST


def test_the_files_that_the_lines_name_are_there() -> None:
    words = [word.split(":")[0] for line in LINES.values() for word in shlex.split(line)]
    named = [word for word in words if word.startswith("docs/")]
    assert len(named) >= 4 and all((ROOT / name).is_file() for name in named)
