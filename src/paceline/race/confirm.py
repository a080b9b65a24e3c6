"""The winner again, on fresh seeds: whoever leads was chosen for leading, so its lead in the race flatters it.

One pair, the winner and its runner-up, at the learning rates of the race, on as few seeds as can settle one pair.
"""

from collections.abc import Sequence
from typing import Any

from paceline.race.cell import Cell, read_record
from paceline.race.grid import Grid
from paceline.race.statistics import ALPHA, compare, seeds_needed

SEEDS = seeds_needed(1)


def confirmation_cells(grid: Grid, result: dict[str, Any]) -> list[Cell]:
    """Winner and runner-up on seeds that the race has not used; none where there are not two that finished."""
    for event in grid.events:
        finished = [row["contestant"] for row in result["standings"][event.task.name] if row["mean"] is not None]
        if finished:  # as for the winner: the first task that anyone finished
            by_name = {c.name: c for c in grid.contestants}
            return grid.fresh([by_name[name] for name in finished[:2]], event, SEEDS) if len(finished) > 1 else []
    return []


def confirm(cells: Sequence[Cell]) -> dict[str, Any] | None:
    """What the cells of `confirmation_cells`, all run, say of the winner's lead; None where there are none.

    It is confirmed where the paired sign-flip test rules out chance and the winner is ahead.
    """
    if not cells:
        return None
    task = cells[0].job.event.task
    a, b = cells[0].contestant.name, cells[1].contestant.name
    scores: dict[str, dict[int, float]] = {a: {}, b: {}}
    brief = []
    for cell in cells:
        record = read_record(cell)
        assert record is not None, f"{cell.record} is missing"
        brief.append({key: record[key] for key in ("contestant", "seed", "status", "reason", "score")})
        if record["status"] == "done":
            scores[record["contestant"]][record["seed"]] = record["score"]
    found = next(iter(compare(scores)), None)
    seeds = sorted({cell.job.seed for cell in cells})
    facts = {"task": task.name, "a": a, "b": b, "seeds": seeds, "verdict": "not confirmed", "cells": brief}
    if found is None:
        sentence = f"On {len(seeds)} fresh seeds too few cells of {a} and {b} finished: not confirmed."
        return {**facts, "sentence": sentence, "difference": None, "interval": None, "p": None}
    sign = 1 if task.better == "higher" else -1
    lead, (low, high) = sign * found.difference, sorted(sign * end for end in found.interval)
    if lead > 0 and found.p <= ALPHA:
        facts["verdict"] = "confirmed"
    sentence = (
        f"On {found.seeds} fresh seeds {a} leads {b} by {lead:.3g} {task.metric} ({low:.3g} to {high:.3g}): "
        f"{facts['verdict']}."
    )
    numbers = {"difference": found.difference, "interval": list(found.interval), "p": found.p}
    return {**facts, "sentence": sentence, **numbers}
