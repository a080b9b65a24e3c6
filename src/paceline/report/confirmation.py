"""The winner against its runner-up on fresh seeds: what the page shows of it."""

from typing import Any

from paceline.report.schema import UNKNOWN
from paceline.report.tables import Table, comparisons
from paceline.report.words import DASH, number


def view(result: dict[str, Any]) -> dict[str, Any] | None:
    """The confirmation of a checked result with its pair and its seeds as tables; `None` where there was none."""
    found = result["confirmation"]
    if found is None:
        return None
    task = next((task for task in result["tasks"] if task["name"] == found["task"]), None)
    metric = task["metric"] if task else "score"
    row = found | {"p_holm": None, "more_seeds": UNKNOWN, "interval_items": None, "seeds": len(found["seeds"])}
    return found | {
        "title": task["title"] if task else found["task"],
        "pair": comparisons([row], metric, result["alpha"]),
        "by_seed": _by_seed(found, metric),
    }


def _by_seed(found: dict[str, Any], metric: str) -> Table:
    """One row per fresh seed: both scores and their difference."""
    cells = {(cell["contestant"], cell["seed"]): cell for cell in found["cells"]}
    seeds = sorted({*found["seeds"], *(cell["seed"] for cell in found["cells"])})
    rows = []
    for seed in seeds:
        pair = [cells.get((name, seed)) for name in (found["a"], found["b"])]
        scores = [cell["score"] if cell and cell["status"] == "done" else None for cell in pair]
        shown = [cell["status"] if cell and cell["status"] != "done" else DASH for cell in pair]
        first, second = scores
        apart = None if first is None or second is None else first - second
        texts = [text if score is None else number(score, 4) for text, score in zip(shown, scores, strict=True)]
        rows.append([str(seed), *texts, number(apart, 4, sign=True)])
    headers = ["seed", f"a, {found['a']}", f"b, {found['b']}", f"a − b, {metric}"]
    return Table(headers, rows, named=0, texts=1, tones=("",) * len(rows))
