"""The command line as users call it: in a process of its own, or in this one where torch's import would be too slow."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _here import Answer

SMALL = ("--tokens", "4096", "--params", "6000")
"""Enough for a model and a few steps of training on text."""
TINY = ("--tokens", "2048", "--params", "3000")
"""The same for generated tasks."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


Call = Callable[..., Answer]


def paceline(*args: object, cwd: Path, prelude: str = "") -> Answer:
    """`paceline ...` in a process of its own, after the Python code `prelude` where one is given."""
    entry = ["-m", "paceline"] if not prelude else ["-c", f"{prelude}\nfrom paceline.cli import main; main()"]
    command = [sys.executable, *entry, *map(str, args)]
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    return Answer(done.returncode, done.stdout, done.stderr)


def start(*args: object, cwd: Path) -> subprocess.Popen[str]:
    """`paceline ...` still running, in a group of processes of its own and with a Ctrl-C that works there."""
    ready = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{ready}; from paceline.cli import main; main()", *map(str, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, text=True, start_new_session=True, **pipes)


def sentence(answer: Answer) -> str:
    """The one sentence with which a command refuses; asserts that there is one, and nothing else to be seen."""
    assert answer.code == 1, answer
    assert "Traceback" not in answer.out + answer.err
    assert answer.err.startswith("paceline: ") and answer.err.count("\n") == 1 and answer.err.endswith("\n"), answer.err
    return answer.err.removeprefix("paceline: ").strip()


def flat(text: str) -> str:
    """Without the line breaks that a terminal makes."""
    return " ".join(text.split())


def write_notes(folder: Path) -> Path:
    """About 30 kB of English words."""
    draw = random.Random(0)
    words = ("the", "a", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "and", "then", "some", "come", "by")
    path = folder / "notes.txt"
    path.write_text(" ".join(draw.choice(words) for _ in range(6000)))
    return path


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def records(race: Path) -> dict[str, dict[str, Any]]:
    """The cells of a race that have their records, by the record's place under `cells`."""
    return {str(path.relative_to(race / "cells")): load(path) for path in sorted(race.glob("cells/**/*.json"))}


def times(race: Path) -> dict[str, int]:
    """When each record was written."""
    return {str(path.relative_to(race / "cells")): path.stat().st_mtime_ns for path in race.glob("cells/**/*.json")}


def scores(race: Path) -> dict[str, float]:
    return {place: record["score"] for place, record in records(race).items()}
