"""From a race's result to HOLDS, FAILS, EQUIVALENT or UNCLEAR, by the bars that were declared."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from paceline.claims._contract import METER, Bar, Design
from paceline.core.errors import PacelineError
from paceline.race.statistics import ALPHA, holm, mean_interval, sign_flip, tost

HOLDS, FAILS, EQUIVALENT, UNCLEAR = "HOLDS", "FAILS", "EQUIVALENT", "UNCLEAR"
VERDICTS = (HOLDS, FAILS, EQUIVALENT, UNCLEAR)


def decide(design: Design, result: Mapping[str, Any], faithful: bool) -> dict[str, Any]:
    """Verdict, marks and effect (the first bar that decided); Holm runs over all bars and shams together.

    A bar HOLDS where the paired differences exceed `by` beyond chance, FAILS where they fall short of it beyond chance,
    and is EQUIVALENT where they are within `equal` of zero. The claim FAILS with any bar, HOLDS with all, is EQUIVALENT
    where some bars are and the others hold, and UNCLEAR otherwise.

    Raises:
        PacelineError: a contestant has no such meter as was declared.
    """
    bars = [*design.bars, *design.shams]
    differences = [advantages(bar, result) for bar in bars]
    raw = [
        sign_flip([d - bar.by for d in values]) if values else 1.0
        for bar, values in zip(bars, differences, strict=True)
    ]
    rows = [_judge(*row) for row in zip(bars, differences, raw, holm(raw), strict=True)]
    main, shams = rows[: len(design.bars)], rows[len(design.bars) :]
    verdict = _overall([row["verdict"] for row in main])
    moved = _moved(design, result)
    return {
        "verdict": verdict,
        "marks": {
            "faithful": faithful,
            "acts": moved and any(row["verdict"] == HOLDS for row in shams),
            "resolved": verdict != UNCLEAR,
        },
        "effect": f"{verdict}: {_sentence(next(row for row in main if row['verdict'] == verdict))}",
        "meter_moved": moved,
        "bars": main,
        "shams": shams,
    }


def advantages(bar: Bar, result: Mapping[str, Any]) -> list[float]:
    """By how much a is better than b, seed by seed, over the seeds that both finished.

    Raises:
        PacelineError: one of them has no such meter as the bar measures.
    """
    better = next(task["better"] for task in result["tasks"] if task["name"] == bar.task)
    cells = {
        (c["contestant"], c["seed"]): c for c in result["cells"] if c["task"] == bar.task and c["status"] == "done"
    }
    found = []
    for seed in result["seeds"]:
        a, b = cells.get((bar.a, seed)), cells.get((bar.b, seed))
        if a is None or b is None:
            continue
        if bar.measure == "score":
            found.append((a["score"] - b["score"]) * (1 if better == "higher" else -1))
        elif bar.measure.startswith(METER):
            meter = bar.measure.removeprefix(METER)
            found.append(fmean(_readings([a], meter)) - fmean(_readings([b], meter)))
        else:
            found.append(1 - a["ledger"][bar.measure] / b["ledger"][bar.measure])
    return found


def _judge(bar: Bar, differences: Sequence[float], p: float, p_holm: float) -> dict[str, Any]:
    average = fmean(differences) if differences else 0.0
    equivalent = bar.equal is not None and len(differences) > 1 and tost(differences, bar.equal) <= ALPHA
    if differences and p_holm <= ALPHA:
        verdict = HOLDS if average > bar.by else EQUIVALENT if equivalent else FAILS
    else:
        verdict = EQUIVALENT if equivalent else UNCLEAR
    return {
        "task": bar.task, "a": bar.a, "b": bar.b, "measure": bar.measure, "by": bar.by, "equal": bar.equal,
        "mean": average, "interval": list(mean_interval(differences)) if differences else None,
        "seeds": len(differences), "p": p, "p_holm": p_holm, "verdict": verdict,
    }  # fmt: skip


def _overall(verdicts: Sequence[str]) -> str:
    if FAILS in verdicts:
        return FAILS
    if UNCLEAR in verdicts:
        return UNCLEAR
    return EQUIVALENT if EQUIVALENT in verdicts else HOLDS


def _moved(design: Design, result: Mapping[str, Any]) -> bool:
    """Whether the meter of the first contestant, the method, was anything but constant 0 or constant 1."""
    method = design.contestants[0].name
    cells = [c for c in result["cells"] if c["contestant"] == method and c["status"] == "done"]
    values = _readings(cells, design.meter)
    return bool(values) and not all(v == 0 for v in values) and not all(v == 1 for v in values)


def _readings(cells: Sequence[Mapping[str, Any]], meter: str) -> list[float]:
    """What a meter told in these cells of one contestant, layer by layer.

    Raises:
        PacelineError: there are cells, and none has such a meter.
    """
    told = [(name.partition(".")[0], value) for cell in cells for name, value in cell["meters"].items()]
    values = [value for name, value in told if name == meter]
    if cells and not values:
        known = ", ".join(sorted({name for name, _ in told})) or "none"
        raise PacelineError(f"{cells[0]['contestant']} has no meter {meter!r}; its meters are: {known}.")
    return values


def _sentence(row: Mapping[str, Any]) -> str:
    unit = "" if row["measure"] == "score" else f" of {row['measure'].removeprefix(METER)}"
    if row["interval"] is None:
        return f"{row['task']}{unit} against {row['b']}: no seed finished"
    low, high = row["interval"]
    return f"{row['task']}{unit} {row['mean']:+.3f} ({low:+.3f} to {high:+.3f}) against {row['b']}"
