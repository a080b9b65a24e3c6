"""Which claims there are, and their verdicts on file. Imports no torch."""

from pathlib import Path
from typing import Any

from paceline.claims._sources import stale
from paceline.core.discovery import PACKAGE
from paceline.core.errors import PacelineError, suggest
from paceline.core.files import write_json
from paceline.core.marks import read_verdict, results_folder

BUDGETS = ("smoke", "cpu", "gpu")


def claims() -> list[tuple[str, str]]:
    """(family, method) of every claim, by file."""
    return sorted((p.parent.name, p.stem) for p in (PACKAGE / "claims").glob("*/*.py") if not p.name.startswith("_"))


def find_claim(method: str) -> tuple[str, str]:
    """(family, method) of a claim.

    Raises:
        PacelineError: there is none of that name (the nearest is suggested).
    """
    known = {name: family for family, name in claims()}
    if method not in known:
        raise PacelineError(f"There is no claim for {method!r}.{suggest(method, known)} `paceline claims` shows all.")
    return known[method], method


def result_path(family: str, method: str, budget: str) -> Path:
    """Where a verdict is stored: `results/<family>/<method>.json`, and `results/gpu/...` for that budget."""
    root = results_folder() if budget == "cpu" else results_folder() / budget
    return root / family / f"{method}.json"


def stored_verdict(family: str, method: str, budget: str) -> dict[str, Any] | None:
    """The verdict on file, or None."""
    return read_verdict(result_path(family, method, budget))


def check_budget(budget: str) -> None:
    """Refuse a budget that does not exist.

    Raises:
        PacelineError: with those that do.
    """
    if budget not in BUDGETS:
        raise PacelineError(f"There is no budget {budget!r}; budgets are {', '.join(BUDGETS)}.")


def store(verdict: dict[str, Any]) -> Path:
    """Write a verdict where `paceline list` finds it."""
    path = result_path(verdict["family"], verdict["method"], verdict["budget"])
    write_json(path, {key: value for key, value in verdict.items() if key != "folder"})
    return path


def is_fresh(verdict: dict[str, Any] | None) -> bool:
    """Whether a stored verdict speaks of the code as it is."""
    return verdict is not None and stale(verdict) is None
