"""Run a claim."""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

from paceline.claims._contract import Budget, Design
from paceline.claims._sources import digests, versions
from paceline.claims._store import check_budget, find_claim
from paceline.claims._verdict import decide
from paceline.core.errors import PacelineError
from paceline.core.spec import parse
from paceline.race.run import race
from paceline.race.watcher import Watcher

JUDGE = "paceline.claims._verdict"


def run_claim(method: str, budget: Budget, root: Path, watcher: Watcher | None = None) -> dict[str, Any]:
    """Run a claim; the same call goes on with an interrupted one.

    Args:
        method: the claim's name.
        budget: how much to spend. A smoke verdict says only that everything works.
        root: folder for the race's cells; the claim takes a place of its own in it, for this very code.
        watcher: hears of progress.

    Raises:
        PacelineError: no such claim or budget, or no cell of it could run, which is no verdict.
    """
    family, method = find_claim(method)
    check_budget(budget)
    module = importlib.import_module(f"paceline.claims.{family}.{method}")
    design: Design = module.design(budget, root / "corpora")
    sources = digests(modules_of(module.__name__, design))
    trained = {name: digest for name, digest in sources.items() if name != JUDGE}  # judging anew trains nothing anew
    code = hashlib.sha256(json.dumps([trained, versions()]).encode()).hexdigest()[:8]
    folder = root / f"{family}-{method}-{budget}-{code}"
    faithful: bool = module.faithful()
    result = race(design.contestants, design.events, out=folder, seeds=design.seeds, watcher=watcher)
    if all(cell["status"] == "failed" for cell in result["cells"]):
        raise PacelineError(f"Every cell of the claim failed; the first said: {result['cells'][0]['reason']}")
    return {
        "claim": module.CLAIM,
        "family": family,
        "method": method,
        "budget": budget,
        **decide(design, result, faithful),
        "limits": design.limits,
        **{key: result[key] for key in ("created", "tasks", "tokens", "parameters", "seeds", "standings", "bill")},
        "cells": [_brief(cell) for cell in result["cells"]],
        "environment": result["environment"],
        "versions": versions(),
        "sources": sources,
        "folder": str(folder),
    }


def modules_of(claim: str, design: Design) -> list[str]:
    """The modules whose code decides: the claim, its contestants and the parts that they name, its tasks, the grid.

    Not how processes are run, nor what is kept and reported: they move no score.
    """
    found = [claim, JUDGE, "paceline.race.grid"]
    for contestant in design.contestants:
        found.append(type(contestant).__module__)
        if (spec := getattr(contestant, "spec", None)) is not None:
            found.append(f"paceline.mixers.{spec.name}")
        if (block := getattr(contestant, "feed_forward", None)) is not None:
            found.append(f"paceline.blocks.{parse(block).name}")
        if isinstance(optimizer := getattr(contestant, "optimizer", None), str):
            found.append(f"paceline.optim.{parse(optimizer).name}")
    return found + [type(event.task).__module__ for event in design.events]


def _brief(cell: dict[str, Any]) -> dict[str, Any]:
    keys = ("task", "contestant", "seed", "status", "reason", "score", "lr", "meters", "ledger")
    return {key: cell[key] for key in keys}
