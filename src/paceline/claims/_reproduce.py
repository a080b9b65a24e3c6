"""Whether changed code still computes what a verdict rests on, from one seed of every contestant.

Cells follow from code, seed and versions, up to rounding: another processor, or a loop that was made faster, sums in
another order. So where all of a seed's scores and meters come out as they were, within what float32 may round
(`core/tolerances.py`), and its counts, operations and bytes exactly, an edit has not moved them, and the verdict speaks
of the new code too. The stored cells are judged anew, by the judge as it is, and must come to the same words.
"""

import importlib
import math
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paceline.claims._contract import Bar, Design
from paceline.claims._run import modules_of
from paceline.claims._sources import digests, versions
from paceline.claims._verdict import decide
from paceline.core.errors import PacelineError
from paceline.core.tolerances import tolerance
from paceline.race.run import race
from paceline.race.watcher import Watcher

SPENT = ("tokens", "flops", "state_bytes", "model_calls", "parameters")


def reproduce(stored: dict[str, Any], root: Path, watcher: Watcher | None = None) -> dict[str, Any]:
    """The verdict on file, now of the code as it is; `reproduced` says by what.

    Args:
        stored: a verdict of `claims._store.stored_verdict`.
        root: folder for runs; that of prepared corpora is in it.
        watcher: hears of progress.

    Raises:
        PacelineError: the claim declares something else now, a library changed, the judge comes to another word, or a
            cell came out otherwise: then only running all of it anew can tell.
    """
    name = f"paceline.claims.{stored['family']}.{stored['method']}"
    module = importlib.import_module(name)
    design: Design = module.design(stored["budget"], root / "corpora")
    sources = digests(modules_of(name, design))
    _check(stored, module.CLAIM, design)
    if (faithful := module.faithful()) != stored["marks"]["faithful"]:
        raise PacelineError(f"{stored['method']} is no longer as faithful as it was: run the claim with --again.")
    seed, searched = stored["seeds"][0], {contestant.name: contestant.settings for contestant in design.contestants}
    apart: list[float] = []
    with tempfile.TemporaryDirectory(dir=root, prefix=".reproduced.") as folder:
        for event in design.events:
            known = {c["contestant"]: c for c in stored["cells"] if (c["task"], c["seed"]) == (event.task.name, seed)}
            for contestant in design.contestants:
                chosen = known[contestant.name]["lr"]
                if chosen not in searched[contestant.name]:
                    raise PacelineError(f"{contestant.name} no longer searches {chosen}: run the claim with --again.")
                contestant.settings = (chosen,)
            result = race(design.contestants, [event], out=Path(folder, event.task.name), seeds=[seed], watcher=watcher)
            apart += [_compare(cell, known[cell["contestant"]]) for cell in result["cells"]]
    decided = decide(design, stored, faithful)
    for what in ("verdict", "marks", "bars", "shams"):
        if _words(decided[what]) != _words(stored[what]):
            raise PacelineError(f"{stored['method']} has other {what} by today's judge: run the claim with --again.")
    today = datetime.now(UTC).isoformat(timespec="seconds")
    facts = {"at": today, "seed": seed, "cells": len(apart), "apart": max(apart)}
    return {**stored, **decided, "limits": design.limits, "sources": sources, "reproduced": facts}


def _words(told: Any) -> Any:
    """What was decided, without the numbers, which another way to compute an interval may round otherwise."""
    return [row["verdict"] for row in told] if isinstance(told, list) else told


def _check(stored: dict[str, Any], claim: str, design: Design) -> None:
    """Refuse where what is declared is not what was judged."""
    seeds = list(range(design.seeds)) if isinstance(design.seeds, int) else list(design.seeds)
    pairs = {
        "its sentence": (claim, stored["claim"]),
        "its bars": ([asdict(bar) for bar in (*design.bars, *design.shams)], _declared(stored)),
        "its seeds": (seeds, stored["seeds"]),
        "its tasks": ([event.task.describe() for event in design.events], [t["describe"] for t in stored["tasks"]]),
        "its contestants": ({c.name for c in design.contestants}, {cell["contestant"] for cell in stored["cells"]}),
        "the versions of libraries": (versions(), stored["versions"]),
    }
    for what, (now, then) in pairs.items():
        if now != then:
            raise PacelineError(f"Of the claim of {stored['method']} {what} changed: run it with --again.")


def _declared(stored: dict[str, Any]) -> list[dict[str, Any]]:
    """The bars and shams as they were declared, without what came of them."""
    names = list(asdict(Bar("", "", "")))
    return [{name: row[name] for name in names} for row in (*stored["bars"], *stored["shams"])]


def _compare(cell: dict[str, Any], known: dict[str, Any]) -> float:
    """The largest difference of a score or meter, as a share of it; more than rounding is refused."""
    now, then = (
        {"status": c["status"], "score": c["score"], **c["meters"]} | {key: c["ledger"].get(key) for key in SPENT}
        for c in (cell, known)
    )
    largest = 0.0
    for key in {**then, **now}:  # in order, so that the same cell is refused for the same thing each time
        a, b = now.get(key), then.get(key)
        apart = _apart(a, b) if key not in SPENT else float(a != b)
        if not apart <= tolerance("float32"):
            raise PacelineError(
                f"{cell['contestant']} on {cell['task']}, seed {cell['seed']}, came out with another {key} "
                f"({a}, not {b}): run the claim with --again."
            )
        largest = max(largest, apart)
    return largest


def _apart(a: object, b: object) -> float:
    if a == b:
        return 0.0
    numbers = isinstance(a, float | int) and isinstance(b, float | int)
    return abs(a - b) / max(abs(a), abs(b)) if numbers else math.inf  # type: ignore[operator,arg-type]
