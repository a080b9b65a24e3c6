"""What has been proven of a method: the three marks and the effect in the result files of its claims."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from paceline.core.card import Card
from paceline.core.discovery import PACKAGE

MARKS = ("faithful", "acts", "resolved")


@dataclass(frozen=True)
class Verdict:
    """Marks are None where no claim has been run."""

    marks: dict[str, bool | None]
    effect: str | None


@cache
def results_folder() -> Path:
    """`results/`: packed with an installed Paceline, or at the root of a checkout."""
    packed = PACKAGE / "_results"
    return packed if packed.is_dir() else PACKAGE.parents[1] / "results"


def verdicts(card: Card) -> Verdict:
    """The marks that stand in `results/<family>/<method>.json`."""
    path = results_folder() / card.family / f"{card.method}.json"
    stored = read_verdict(path)
    return Verdict(stored["marks"], stored["effect"]) if stored else Verdict(dict.fromkeys(MARKS), None)


def read_verdict(path: Path) -> dict[str, Any] | None:
    """A claim's result file, or None where there is none, or what is there is not one."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        words = [stored["verdict"], stored["effect"], stored["claim"], *stored["sources"].values()]
        marks = {mark: stored["marks"][mark] for mark in MARKS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    whole = all(isinstance(word, str) for word in words) and all(isinstance(mark, bool) for mark in marks.values())
    return {**stored, "marks": marks} if whole else None
