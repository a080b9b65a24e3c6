"""Whether changed code still computes what a verdict rests on, from one seed of every contestant.

Cells follow from code, seed and versions alone. So where all of a seed's scores, meters, operations and bytes come out
equal to the last digit, an edit has not moved them, and the verdict speaks of the new code too.
"""

import importlib
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paceline.claims._contract import Bar, Design
from paceline.claims._run import JUDGE, modules_of
from paceline.claims._sources import digests, versions
from paceline.core.errors import PacelineError
from paceline.race.run import Watcher, race

SAME = ("status", "score", "meters")
SPENT = ("tokens", "flops", "state_bytes", "model_calls")


def reproduce(stored: dict[str, Any], root: Path, watcher: Watcher | None = None) -> dict[str, Any]:
    """The verdict on file, now of the code as it is; `reproduced` says by what.

    Args:
        stored: a verdict of `claims._store.stored_verdict`.
        root: folder for runs; that of prepared corpora is in it.
        watcher: hears of progress.

    Raises:
        PacelineError: the claim declares something else now, its judge or a library changed, or a cell came out
            otherwise: then only running all of it anew can tell.
    """
    name = f"paceline.claims.{stored['family']}.{stored['method']}"
    module = importlib.import_module(name)
    design: Design = module.design(stored["budget"], root / "corpora")
    sources = digests(modules_of(name, design))
    _check(stored, module.CLAIM, design, sources)
    if module.faithful() != stored["marks"]["faithful"]:
        raise PacelineError(f"{stored['method']} is no longer as faithful as it was: run the claim with --again.")
    seed = stored["seeds"][0]
    count = 0
    with tempfile.TemporaryDirectory(dir=root, prefix=".reproduced.") as folder:
        for event in design.events:
            known = {c["contestant"]: c for c in stored["cells"] if (c["task"], c["seed"]) == (event.task.name, seed)}
            for contestant in design.contestants:
                contestant.settings = (known[contestant.name]["lr"],)  # what the search had chosen
            result = race(design.contestants, [event], out=Path(folder, event.task.name), seeds=[seed], watcher=watcher)
            for cell in result["cells"]:
                _compare(cell, known[cell["contestant"]])
            count += len(result["cells"])
    today = datetime.now(UTC).isoformat(timespec="seconds")
    return {**stored, "sources": sources, "reproduced": {"at": today, "seed": seed, "cells": count}}


def _check(stored: dict[str, Any], claim: str, design: Design, sources: dict[str, str]) -> None:
    """Refuse where what is declared is not what was judged."""
    seeds = list(range(design.seeds)) if isinstance(design.seeds, int) else list(design.seeds)
    pairs = {
        "its sentence": (claim, stored["claim"]),
        "its bars": ([asdict(bar) for bar in (*design.bars, *design.shams)], _declared(stored)),
        "its seeds": (seeds, stored["seeds"]),
        "its tasks": ([event.task.describe() for event in design.events], [t["describe"] for t in stored["tasks"]]),
        "its contestants": ({c.name for c in design.contestants}, {cell["contestant"] for cell in stored["cells"]}),
        "the code that judges": (sources.get(JUDGE), stored["sources"].get(JUDGE)),
        "the versions of libraries": (versions(), stored["versions"]),
    }
    for what, (now, then) in pairs.items():
        if now != then:
            raise PacelineError(f"Of the claim of {stored['method']} {what} changed: run it with --again.")


def _declared(stored: dict[str, Any]) -> list[dict[str, Any]]:
    """The bars and shams as they were declared, without what came of them."""
    names = list(asdict(Bar("", "", "")))
    return [{name: row[name] for name in names} for row in (*stored["bars"], *stored["shams"])]


def _compare(cell: dict[str, Any], known: dict[str, Any]) -> None:
    """Refuse a cell that differs in any digit."""
    now, then = ({key: c[key] for key in SAME} | {key: c["ledger"][key] for key in SPENT} for c in (cell, known))
    if differs := [key for key in now if now[key] != then[key]]:
        raise PacelineError(
            f"{cell['contestant']} on {cell['task']}, seed {cell['seed']}, came out with another {differs[0]} "
            f"({now[differs[0]]}, not {then[differs[0]]}): run the claim with --again."
        )
