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
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = {}
    marks = stored.get("marks", {})
    return Verdict({mark: marks.get(mark) for mark in MARKS}, stored.get("effect"))
