"""The tables of the report as plain text: headers and rows that page and terminal both show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paceline.report.items import Duel
from paceline.report.series import Series
from paceline.report.words import DASH, column, count, decimals, number, p_value, significant, span

COSTS = ("parameters", "flops", "seconds", "state_bytes", "peak_bytes")


@dataclass(frozen=True)
class Table:
    """Headers, and rows of as many texts."""

    headers: list[str]
    rows: list[list[str]]
    named: int
    """How many leading columns are contestants."""
    texts: int
    """How many leading columns, these included, are words, set to the left; the rest are numbers."""
    tones: tuple[str, ...]
    """Per row `"strong"`, `"quiet"` or nothing."""


def _of(
    columns: Sequence[tuple[str, Sequence[str]]], named: int = 1, texts: int = 1, tones: Sequence[str] | None = None
) -> Table:
    """A table of columns; those without any value are left out, except the leading `texts`."""
    kept = [pair for i, pair in enumerate(columns) if i < texts or any(v != DASH for v in pair[1])]
    rows = [list(row) for row in zip(*(values for _, values in kept), strict=True)]
    return Table([header for header, _ in kept], rows, named, texts, tuple(tones or [""] * len(rows)))


def standings(series: Sequence[Series], metric: str, alpha: float) -> Table:
    """Contestants best first: quality, seeds, every cost, learning rate, meters."""
    digits = decimals([s.interval for s in series])
    meters = list(dict.fromkeys(name for s in series for name in s.meters))
    return _of(
        [
            ("contestant", [s.name for s in series]),
            ("rank", [count(s.rank) for s in series]),
            (f"mean {metric}", [number(s.mean, digits) for s in series]),
            (f"{100 * (1 - alpha):g}\u00a0% interval", [span(s.interval, digits) for s in series]),
            ("seeds", [f"{s.done}" + (f", {s.failed} failed" if s.failed else "") for s in series]),
            *(
                column(cost, [s.costs.get(cost) for s in series])
                for cost in COSTS
                if any(s.costs.get(cost) for s in series)
            ),
            ("learning rate", [_rates(s.rates) for s in series]),
            *((name, [significant(s.meters.get(name)) for s in series]) for name in meters),
        ],
        tones=["strong" if s.rank == 1 else "" for s in series],
    )


def _rates(rates: Sequence[float]) -> str:
    return DASH if not rates else f"{rates[0]:g}" if len(rates) == 1 else f"{rates[0]:g} to {rates[-1]:g}"


def comparisons(rows: Sequence[dict[str, Any]], metric: str, alpha: float) -> Table:
    """Every pair: verdict in words, difference a minus b with its intervals, what would settle it, p, p adjusted."""
    digits = decimals([row["interval"] for row in rows])
    share = f"{100 * (1 - alpha):g}\u00a0%"
    wide = [row.get("interval_items") for row in rows]
    return _of(
        [
            ("a", [row["a"] for row in rows]),
            ("b", [row["b"] for row in rows]),
            ("verdict", [row["verdict"] for row in rows]),
            (f"a − b, {metric}", [number(row["difference"], digits, sign=True) for row in rows]),
            (f"{share} interval, seeds", [span(row["interval"], digits, sign=True) for row in rows]),
            (f"{share} interval, seeds and items", [span(interval, digits, sign=True) for interval in wide]),
            ("seeds", [count(row["seeds"]) for row in rows]),
            ("to settle it", [_wanted(row["more_seeds"]) for row in rows]),
            ("p", [p_value(row["p"]) for row in rows]),
            ("p, Holm", [p_value(row["p_holm"]) for row in rows]),
        ],
        named=2,
        texts=3,
        tones=["quiet" if row["verdict"] == "not resolved" else "" for row in rows],
    )


def _wanted(more: int | None) -> str:
    """What it would take to settle a pair, in words."""
    if more is None:
        return "no number of seeds"
    return DASH if more < 0 else "settled" if more == 0 else f"{count(more)} more seed{'' if more == 1 else 's'}"


def items(found: Sequence[Duel]) -> Table:
    """Every pair that counted items: how often a is ahead, b is, neither is, and the exact p."""
    return _of(
        [
            ("a", [duel.left[0] for duel in found]),
            ("b", [duel.right[0] for duel in found]),
            ("a ahead", [count(duel.ahead) for duel in found]),
            ("equal", [count(duel.equal) for duel in found]),
            ("b ahead", [count(duel.behind) for duel in found]),
            ("p", [p_value(duel.p) for duel in found]),
        ],
        named=2,
        texts=2,
    )


def bill(ledgers: dict[str, dict[str, float | None]]) -> Table:
    """What each phase spent, and the sum. Sizes (parameters, bytes) do not add up, so they have no sum."""
    names = list(dict.fromkeys(name for ledger in ledgers.values() for name in ledger))
    columns = []
    for name in names:
        spent = [ledger.get(name) for ledger in ledgers.values()]
        known = [v for v in spent if v is not None]
        sums = name != "parameters" and not name.endswith("_bytes") and known
        columns.append(column(name, [*spent, sum(known) if sums else None]))
    return _of([("phase", [*ledgers, "sum"]), *columns], named=0, tones=[*("" for _ in ledgers), "strong"])


def tuning(rows: Sequence[dict[str, Any]], chosen: dict[str, list[float]]) -> Table:
    """Score of every contestant at every learning rate tried; the rate it raced at is marked."""
    rates = sorted({row["lr"] for row in rows if row["lr"] is not None})
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    tried = {(row["contestant"], row["lr"]): row for row in rows}

    def score(name: str, lr: float) -> str:
        row = tried.get((name, lr))
        if row is None:
            return DASH
        text = "failed" if row["status"] == "failed" else number(row["score"], 3)
        return f"▸ {text}" if lr in chosen.get(name, []) else text

    return _of([("contestant", names), *((f"{lr:g}", [score(name, lr) for name in names]) for lr in rates)])


def failures(result: dict[str, Any]) -> list[dict[str, str]]:
    """Cells, fresh ones included, and tuning runs that failed: contestant, task, run (which one it was) and reason."""
    lost = [(cell, f"race, seed {cell['seed']}") for cell in result["cells"]]
    fresh = result["confirmation"] or {"cells": [], "task": ""}
    lost += [({"task": fresh["task"]} | cell, f"confirmation, seed {cell['seed']}") for cell in fresh["cells"]]
    for row in result["tuning"]:
        lost.append((row, "tuning" if row["lr"] is None else f"tuning, learning rate {row['lr']:g}"))
    return [
        {"contestant": row["contestant"], "task": row["task"], "run": run, "reason": row["reason"] or "not recorded"}
        for row, run in lost
        if row["status"] == "failed"
    ]
