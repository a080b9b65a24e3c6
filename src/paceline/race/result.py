"""From the cells' records to a result: standings, comparisons, the answer in words. Everything here is plain JSON."""

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from paceline import __version__
from paceline.core.ledger import Ledger
from paceline.race.cell import Cell, read_record
from paceline.race.confirm import confirm
from paceline.race.contestant import Event
from paceline.race.grid import Grid
from paceline.race.statistics import (
    ALPHA,
    Comparison,
    bound_warning,
    compare,
    hierarchical_interval,
    mcnemar,
    mean_interval,
    more_seeds,
    seeds_needed,
)

SCHEMA = 1
TIE = 1e-12
"""Items whose scores differ by no more are equal: means of equal scores differ in their last bits."""
LISTED = ("task", "contestant", "seed", "status", "reason", "score", "lr")


def assemble(grid: Grid, confirming: Sequence[Cell] = ()) -> dict[str, Any]:
    """The result of a race whose cells, and those that confirm its winner, have their records."""
    cells = [_complete(cell) for cell in grid.race()]
    tuning = [_complete(cell) for cell in grid.tuning()]
    phases = {"tuning": tuning, "race": cells}
    if confirming:
        phases["confirmation"] = [_complete(cell) for cell in confirming]
    standings = {e.task.name: _standings(e, grid, cells) for e in grid.events}
    comparisons = {e.task.name: _comparisons(e, grid, cells) for e in grid.events}
    return {
        "schema": SCHEMA,
        "title": "Race: " + ", ".join(c.name for c in grid.contestants),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "answer": " ".join(
            _answer(e, standings[e.task.name], comparisons[e.task.name], len(grid.contestants)) for e in grid.events
        ),
        "tasks": [_describe(e) for e in grid.events],
        "contestants": [c.name for c in grid.contestants],
        "seeds": list(grid.seeds),
        "tokens": {e.task.name: e.tokens for e in grid.events},
        "parameters": {e.task.name: e.parameters for e in grid.events},
        "alpha": ALPHA,
        "cells": cells,
        "tuning": [{k: record[k] for k in LISTED if k != "seed"} for record in tuning],
        "standings": standings,
        "comparisons": comparisons,
        "confirmation": confirm(confirming),
        "bill": _bill(phases),
        "winner": None,
        "environment": environment(),
        "limits": _limits(grid),
    }


def environment() -> dict[str, str]:
    """Machine and versions. Which instructions torch takes decides how sums are ordered, so the last digits too."""
    return {
        "paceline": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "numpy", "scipy")},
        "system": platform.platform(),
        "processor": f"{_processor()} with {torch.backends.cpu.get_cpu_capability()}",
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _complete(cell: Cell) -> dict[str, Any]:
    record = read_record(cell)
    assert record is not None, f"{cell.record} is missing"
    empty: dict[str, Any] = {
        "items": [],
        "curve": [],
        "meters": {},
        "trace": None,
        "evaluation": {},
        "curve_unit": cell.job.event.task.loss_unit,
    }
    return {**empty, **record}


def _scores(task: str, cells: Sequence[Mapping[str, Any]], contestant: str) -> dict[int, float]:
    return {
        c["seed"]: c["score"]
        for c in cells
        if c["task"] == task and c["contestant"] == contestant and c["status"] == "done"
    }


def _standings(event: Event, grid: Grid, cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for contestant in grid.contestants:
        scores = list(_scores(event.task.name, cells, contestant.name).values())
        rows.append({
            "contestant": contestant.name,
            "seeds": len(scores),
            "failed": len(grid.seeds) - len(scores),
            "mean": sum(scores) / len(scores) if scores else None,
            "interval": _interval(scores, event) if scores else None,
            "warning": _warning(scores, event),
        })  # fmt: skip
    sign = -1 if event.task.better == "higher" else 1
    rows.sort(key=lambda row: (row["mean"] is None, sign * (row["mean"] or 0.0)))
    return [{**row, "rank": rank} for rank, row in enumerate(rows, 1)]


def _warning(scores: Sequence[float], event: Event) -> str | None:
    floor = event.task.floor
    return None if floor is None else bound_warning(scores, floor, event.task.ceiling)


def _interval(scores: Sequence[float], event: Event) -> list[float]:
    """The mean's interval, cut where no score can be: a t interval knows nothing of a ceiling."""
    low, high = mean_interval(scores)
    ceiling = event.task.ceiling
    return [low, high if ceiling is None else min(high, ceiling)]


def _comparisons(event: Event, grid: Grid, cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    scores = {c.name: _scores(event.task.name, cells, c.name) for c in grid.contestants}
    items = {(c["contestant"], c["seed"]): c["items"] for c in cells if c["task"] == event.task.name}
    compared = compare(scores)
    rows = []
    for c in compared:
        shared = sorted(scores[c.a].keys() & scores[c.b].keys())
        differences = [scores[c.a][seed] - scores[c.b][seed] for seed in shared]
        rows.append({
            "a": c.a, "b": c.b, "difference": c.difference, "interval": list(c.interval),
            **_by_item([(items[c.a, seed], items[c.b, seed]) for seed in shared], event),
            "p": c.p, "p_holm": c.p_holm, "verdict": _verdict(c, event), "seeds": c.seeds,
            "more_seeds": 0 if c.resolved else more_seeds(differences, len(compared)),
        })  # fmt: skip
    return rows


def _by_item(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], event: Event) -> dict[str, Any]:
    """The pair item by item, where all cells measured the same items, else nothing.

    `interval_items` is over seeds and items together. `items` counts those on which a is better, b is, and neither, by
    their means over the seeds; its p is McNemar's, for other items but these trained models.
    """
    if len({len(row) for pair in pairs for row in pair}) != 1 or len(pairs[0][0]) < 2:
        return {"interval_items": None, "items": None}
    differences = np.asarray([a for a, _ in pairs]) - np.asarray([b for _, b in pairs])
    gains = differences.mean(0) * (1 if event.task.better == "higher" else -1)
    a, b = int((gains > TIE).sum()), int((gains < -TIE).sum())
    return {
        "interval_items": list(hierarchical_interval(differences)),
        "items": {"a": a, "b": b, "equal": len(gains) - a - b, "p": mcnemar(a, b)},
    }


def _verdict(c: Comparison, event: Event) -> str:
    if not c.resolved:
        return "not resolved"
    a_wins = (c.difference > 0) == (event.task.better == "higher")
    return f"{c.a if a_wins else c.b} is better"


def _answer(event: Event, standings: list[dict[str, Any]], comparisons: list[dict[str, Any]], racing: int) -> str:
    """One or two sentences: who leads, over whom that is settled, over whom it is not."""
    task, metric = event.task.title.lower(), event.task.metric
    finished = [row for row in standings if row["mean"] is not None]
    if not finished:
        return f"On {task}, no cell finished: see the failures below."
    best = finished[0]["contestant"]
    lead = f"On {task}, {best} leads with {finished[0]['mean']:.3g} {metric}"
    if len(finished) == 1:
        return lead + (" and has no rival." if racing == 1 else "; no rival finished.")
    second = finished[1]
    lead += f" before {second['contestant']} with {second['mean']:.3g}"
    beaten: list[str] = []
    open_: list[str] = []
    for c in comparisons:
        if best in (c["a"], c["b"]):
            rival = c["b"] if c["a"] == best else c["a"]
            (beaten if c["verdict"] == f"{best} is better" else open_).append(rival)
    if not open_ and beaten:
        return f"{lead}; it is better than {_all(beaten)}, and chance is ruled out at {ALPHA:.0%} over all pairs."
    settled = f" Settled: it is better than {_all(beaten)}." if beaten else ""
    pairs = len(comparisons) or len(finished) * (len(finished) - 1) // 2  # pairs with one seed are not compared
    seeds, needed = max((c["seeds"] for c in comparisons), default=1), seeds_needed(pairs)
    if seeds < needed:
        hint = f" {_count(seeds, 'seed')} cannot settle {_count(pairs, 'pair')}; {needed} can."
    else:
        hint = _more([c["more_seeds"] for c in comparisons if best in (c["a"], c["b"]) and c["more_seeds"] != 0])
    rivals = open_ or [row["contestant"] for row in finished[1:]]
    return f"{lead}, but against {_all(rivals)} that is not resolved.{settled}{hint}"


def _more(wanted: Sequence[int | None]) -> str:
    """What it would take to settle the leader's open pairs."""
    known = [number for number in wanted if number is not None]
    if not known or len(known) < len(wanted):
        return " If the differences are as seen, no number of seeds that one would run settles it." if wanted else ""
    return f" If the differences are as seen, {_count(max(known), 'more seed')} would settle it four times in five."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _all(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _describe(event: Event) -> dict[str, Any]:
    task = event.task
    return {
        "name": task.name, "title": task.title, "describe": task.describe(), "metric": task.metric,
        "better": task.better, "floor": task.floor, "ceiling": task.ceiling,
    }  # fmt: skip


def _bill(phases: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    """Everything that was spent: training by phase, all evaluations, and what failed anywhere.

    Args:
        phases: the records of each.
    """
    sums = {name: Ledger() for name in (*phases, "evaluation", "failed")}
    for phase, records in phases.items():
        for record in records:
            sums[phase if record["status"] == "done" else "failed"] += Ledger.from_dict(record["ledger"])
            sums["evaluation"] += Ledger.from_dict(record["evaluation"])
    return {phase: ledger.to_dict() for phase, ledger in sums.items()}


def _limits(grid: Grid) -> list[str]:
    sizes = " and ".join(f"{e.parameters:,} parameters on {e.tokens:,} tokens ({e.task.name})" for e in grid.events)
    settings = max(len(c.settings) for c in grid.contestants)
    lines = [
        f"Scale: models of about {sizes}. What wins at this size and this budget may lose at another.",
        f"Seeds vary the initialisation and the order of the data; {len(grid.seeds)} of them are the replicates. "
        "The data itself, and what is held out, are the same for all.",
        "The sign-flip test asks only whether a difference could be chance, not whether it matters: read the interval.",
    ]
    if settings > 1:
        lines.append(
            f"Each contestant chose the best of {settings} learning rates on one pilot seed, which the race does not "
            f"use; on a longer run another rate may be best.{_at_the_edge(grid)}"
        )
    return lines


def _at_the_edge(grid: Grid) -> str:
    """Who chose the largest or smallest setting on offer, and might have done better beyond it."""
    names = [
        f"{c.name} ({e.task.name})"
        for e in grid.events
        for c in grid.contestants
        if len(c.settings) > 1 and grid.chosen(c, e) in (max(c.settings), min(c.settings))
    ]
    return f" At the edge of that grid, so perhaps undersold: {', '.join(names)}." if names else ""
