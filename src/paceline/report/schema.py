"""The shape of `result.json`: checked, cleaned and completed once, so that the rest of the report need not doubt it.

A specification is a type (`str`, `float`, `int`), `PROSE` (text that may hold newlines), `TOKEN` (text kept as it
is), a list of one specification, a dict of named ones, or `Maybe` and `Map` below. Unknown keys are ignored.
"""

from dataclasses import dataclass
from typing import Any

from paceline.core.errors import PacelineError
from paceline.report.words import visible

SCHEMA = 1
PROSE, TOKEN = "prose", "token"
UNKNOWN = -1
"""Of `more_seeds`, where an older result does not say: null says that no number of seeds would do."""
WIDEST = 1e301
"""Numbers from here on are no measurement, and their sums and differences are infinite."""


@dataclass(frozen=True)
class Maybe:
    """May be null or missing; then `default()` stands in its place, or null; `absent` for a missing one alone."""

    spec: Any
    default: Any = None
    absent: Any = None


@dataclass(frozen=True)
class Map:
    """Any names, each with a value of one kind."""

    spec: Any


LEDGER = Map(Maybe(float))
TRACE = {"tokens": [TOKEN], "layers": [{"layer": int, "gates": [Maybe(float, float)]}]}
CELL = {
    "task": str, "contestant": str, "seed": int, "status": str, "reason": Maybe(PROSE), "score": Maybe(float),
    "lr": Maybe(float), "curve": Maybe([[Maybe(float)]], list), "curve_unit": Maybe(str, str),
    "ledger": Maybe(LEDGER, dict), "meters": Maybe(LEDGER, dict), "trace": Maybe(TRACE),
}  # fmt: skip
INTERVAL = Maybe([Maybe(float)])
PAIR = {
    "a": str, "b": str, "difference": Maybe(float), "interval": INTERVAL, "interval_items": INTERVAL,
    "p": Maybe(float), "p_holm": Maybe(float), "verdict": str, "seeds": Maybe(int),
    "more_seeds": Maybe(int, absent=UNKNOWN),
    "items": Maybe({"a": int, "b": int, "equal": int, "p": Maybe(float)}),
}  # fmt: skip
FRESH = {"contestant": str, "seed": int, "status": str, "reason": Maybe(PROSE), "score": Maybe(float)}
RESULT = {
    "schema": int, "title": str, "created": Maybe(str, str), "answer": PROSE,
    "tasks": [{
        "name": str, "title": str, "describe": Maybe(PROSE, str), "metric": str, "better": str,
        "floor": Maybe(float), "ceiling": Maybe(float),
    }],
    "contestants": [str], "seeds": [int],
    "tokens": Maybe(Map(Maybe(float)), dict), "parameters": Maybe(Map(Maybe(float)), dict),
    "alpha": Maybe(float), "cells": [CELL],
    "tuning": Maybe([{
        "task": str, "contestant": str, "lr": Maybe(float), "score": Maybe(float), "status": Maybe(str, str),
        "reason": Maybe(PROSE),
    }], list),
    "standings": Maybe(Map([{
        "contestant": str, "seeds": Maybe(int, int), "failed": Maybe(int, int), "mean": Maybe(float),
        "interval": INTERVAL, "rank": Maybe(int), "warning": Maybe(PROSE),
    }]), dict),
    "comparisons": Maybe(Map([PAIR]), dict),
    "confirmation": Maybe({
        "task": str, "a": str, "b": str, "seeds": Maybe([int], list), "difference": Maybe(float), "interval": INTERVAL,
        "p": Maybe(float), "verdict": str, "sentence": PROSE, "cells": Maybe([FRESH], list),
    }),
    "bill": Maybe(Map(LEDGER), dict),
    "winner": Maybe({
        "task": str, "contestant": str, "seed": Maybe(int), "folder": Maybe(str), "command": Maybe(str),
    }),
    "environment": Maybe(Map(str), dict), "limits": Maybe([PROSE], list),
}  # fmt: skip


def checked(result: dict[str, Any]) -> dict[str, Any]:
    """A clean copy of a race's result: every key present, control characters visible, NaN and infinity null.

    Raises:
        PacelineError: a key is missing or has the wrong type, or the schema is of another version.
    """
    if isinstance(result, dict) and result.get("schema") != SCHEMA:
        raise PacelineError(
            f"The result has schema {result.get('schema')!r}, this Paceline reads schema {SCHEMA}: "
            "report it with the version that ran the race."
        )
    clean: dict[str, Any] = _take(result, RESULT, "result")
    for task in clean["tasks"]:
        if task["better"] not in ("lower", "higher"):
            raise PacelineError(f"better of task {task['name']!r} must be 'lower' or 'higher', not {task['better']!r}.")
    pairs = [row for rows in clean["comparisons"].values() for row in rows]
    for row in (*(row for rows in clean["standings"].values() for row in rows), *pairs, clean["confirmation"] or {}):
        for key in row.keys() & {"interval", "interval_items"}:
            ends = row[key]
            row[key] = sorted(ends) if ends and len(ends) == 2 and None not in ends else None
    for row in pairs:
        if row["items"] and min(row["items"][side] for side in ("a", "b", "equal")) < 0:
            row["items"] = None
    for cell in clean["cells"]:
        points = (point[:2] for point in cell["curve"] if len(point) >= 2)
        cell["curve"] = sorted(point for point in points if None not in point)
    if clean["alpha"] is None:
        clean["alpha"] = 0.05
    seen = dict.fromkeys([*clean["contestants"], *(cell["contestant"] for cell in clean["cells"])])
    clean["contestants"] = list(seen)  # a cell of an undeclared contestant is still shown
    return clean


def _take(value: Any, spec: Any, where: str) -> Any:
    if isinstance(spec, Maybe):
        taken = None if value is None else _take(value, spec.spec, where)
        return spec.default() if taken is None and spec.default else taken
    if isinstance(spec, list):
        return [_take(item, spec[0], f"{where}[{i}]") for i, item in enumerate(_is(value, (list, tuple), where))]
    if isinstance(spec, Map):
        pairs = _is(value, dict, where).items()
        return {visible(str(key)): _take(item, spec.spec, f"{where}.{key}") for key, item in pairs}
    if isinstance(spec, dict):
        record = _is(value, dict, where)
        for key, inner in spec.items():
            if key not in record and not isinstance(inner, Maybe):
                raise PacelineError(f"{where} lacks {key!r}: it is not the result of a race, or was cut short.")
        given = {k: record[k] if k in record or not isinstance(i, Maybe) else i.absent for k, i in spec.items()}
        return {key: _take(given[key], inner, f"{where}.{key}") for key, inner in spec.items()}
    if spec in (str, PROSE, TOKEN):
        text = _is(value, str, where)
        return text if spec is TOKEN else visible(text, keep="\n\t" if spec is PROSE else "")
    kind = int if spec is int else (int, float)
    found = _is(value, kind, where)
    if spec is int:  # it counts or names something
        return _is(found if abs(found) < WIDEST else None, int, where)
    return found if abs(found) < WIDEST else None  # not a number compares false


def _is(value: Any, kind: Any, where: str) -> Any:
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    wanted = {str: "text", int: "a whole number", dict: "an object", (list, tuple): "a list"}.get(kind, "a number")
    raise PacelineError(f"{where} must be {wanted}, not {type(value).__name__}: the result is damaged or hand-edited.")
