"""What one contestant did on one task: its cells gathered into a row for tables and a series for charts."""

from dataclasses import dataclass, field
from typing import Any

from paceline.report.words import mean


@dataclass(frozen=True, kw_only=True)
class Series:
    """One contestant on one task. `index` fixes its colour, marker and dash on the whole page."""

    name: str
    index: int
    rank: int | None
    scores: list[float]
    """One per finished seed, in the metric's unit."""
    mean: float | None
    interval: list[float] | None
    done: int
    failed: int
    curves: list[list[list[float]]]
    """Per finished seed: [tokens, loss] pairs by tokens."""
    curve_unit: str = ""
    costs: dict[str, float] = field(default_factory=dict)
    """Mean over finished seeds, by currency."""
    meters: dict[str, float] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    """The learning rates its finished cells ran at, ascending."""


def series_of(result: dict[str, Any], task: str) -> list[Series]:
    """All contestants of a checked result on one task, best first; those without a standing come last."""
    standings = {row["contestant"]: row for row in result["standings"].get(task, [])}
    index = {name: i for i, name in enumerate(result["contestants"])}
    order = [*standings, *(name for name in index if name not in standings)]
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in order}
    for cell in result["cells"]:
        if cell["task"] == task:
            cells[cell["contestant"]].append(cell)
    return [_series(name, index.get(name, len(index)), standings.get(name), cells[name]) for name in order]


def _series(name: str, index: int, standing: dict[str, Any] | None, cells: list[dict[str, Any]]) -> Series:
    done = [cell for cell in cells if cell["status"] == "done"]
    scores = [cell["score"] for cell in done if cell["score"] is not None]
    known = standing or {"rank": None, "mean": None, "interval": None}
    return Series(
        name=name,
        index=index,
        rank=known["rank"],
        scores=scores,
        mean=mean(scores) if known["mean"] is None else known["mean"],
        interval=known["interval"],
        done=known.get("seeds", len(done)),
        failed=known.get("failed", len(cells) - len(done)),
        curves=[cell["curve"] for cell in done if cell["curve"]],
        curve_unit=next((cell["curve_unit"] for cell in done if cell["curve_unit"]), ""),
        costs=_means([cell["ledger"] for cell in done]),
        meters=_means([cell["meters"] for cell in done]),
        rates=sorted({cell["lr"] for cell in done if cell["lr"] is not None}),
    )


def _means(ledgers: list[dict[str, float | None]]) -> dict[str, float]:
    names = dict.fromkeys(name for ledger in ledgers for name in ledger)
    columns = {name: [v for ledger in ledgers if (v := ledger.get(name)) is not None] for name in names}
    return {name: average for name, values in columns.items() if (average := mean(values)) is not None}
