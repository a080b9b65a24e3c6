"""Stored verdicts bear no sign of a mixed-up experiment."""

import json
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).parents[1] / "results"
VERDICTS = {
    path.relative_to(RESULTS).as_posix(): found
    for path in sorted(RESULTS.glob("*/*.json"))
    if "claim" in (found := json.loads(path.read_text(encoding="utf-8")))
}
SEVERAL = [name for name, verdict in VERDICTS.items() if len(verdict["tasks"]) > 1]


def same_on_two_tasks(verdict: dict[str, Any]) -> list[str]:
    """What is one series of numbers on two tasks, seed by seed: one task's cells used what was made for the other."""
    series: dict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for cell in verdict["cells"]:
        for measure, value in {"score": cell["score"], **cell["meters"]}.items():
            series[cell["contestant"], measure][cell["task"]][cell["seed"]] = value
    return [
        f"{contestant}: {measure} on {one} and {other}"
        for (contestant, measure), tasks in series.items()
        for (one, here), (other, there) in combinations(tasks.items(), 2)
        if here == there and len(set(here.values())) > 1
    ]


@pytest.mark.parametrize("name", SEVERAL)
def test_two_tasks_are_told_by_two_numbers(name: str) -> None:
    assert not same_on_two_tasks(VERDICTS[name])


def test_a_mix_up_is_seen() -> None:
    verdict = VERDICTS["data/color_filter.json"]
    first = {(cell["contestant"], cell["seed"]): cell["meters"] for cell in verdict["cells"] if cell["task"] == "table"}
    cells = [{**cell, "meters": first[cell["contestant"], cell["seed"]]} for cell in verdict["cells"]]
    assert "conditional only, 1/16: target on table and tree" in same_on_two_tasks({"cells": cells})
