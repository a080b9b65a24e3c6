"""A race's result as a table for other tools: Parquet with everything that was measured, or CSV without the lists.

One row for each cell, those of the search included. In Parquet `items` holds a cell's scores item by item and `curve`
its learning curve; pandas, polars and DuckDB unnest either into a long table with one call.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paceline import __version__
from paceline.core.errors import PacelineError
from paceline.core.files import write_atomic
from paceline.report.page import write as write_html
from paceline.report.schema import checked

if TYPE_CHECKING:
    import pyarrow

LISTS = ("items", "curve")
TEXTS = ("task", "contestant", "phase", "status", "reason", "curve_unit")


def cells_table(result: dict[str, Any]) -> "pyarrow.Table":
    """One row for each cell: those of the race, of its search for learning rates, and of a confirmation.

    Columns: task, contestant, phase (race, tuning or confirmation), status, reason, curve_unit, seed, score (in the
    task's metric), lr, one `ledger_<currency>` and one `meter_<name>` for each that any cell has, items (list of
    scores) and curve (list of tokens and loss). The seed is an int64, other numbers are float64, and what the result
    does not tell of a cell is null. The schema's metadata hold the version of Paceline, when the race ended, its title.

    Raises:
        PacelineError: the result is malformed.
    """
    import pyarrow as pa

    clean = checked(result)
    cells = [
        {**cell, "phase": "race", "items": _items(raw.get("items"), f"result.cells[{i}].items")}
        for i, (cell, raw) in enumerate(zip(clean["cells"], result["cells"], strict=True))
    ]
    again = clean["confirmation"] or {"task": "", "cells": []}
    cells += [{**cell, "phase": "tuning"} for cell in clean["tuning"]]
    cells += [{**cell, "phase": "confirmation", "task": again["task"]} for cell in again["cells"]]
    numbers: dict[str, list[float | None]] = {key: [cell.get(key) for cell in cells] for key in ("score", "lr")}
    for prefix, part in (("ledger", "ledger"), ("meter", "meters")):
        for name in dict.fromkeys(name for cell in cells for name in cell.get(part, {})):
            numbers[f"{prefix}_{name}"] = [cell.get(part, {}).get(name) for cell in cells]
    points = pa.list_(pa.struct([("tokens", pa.float64()), ("loss", pa.float64())]))
    try:
        columns = {
            **{key: pa.array([cell.get(key) for cell in cells], pa.string()) for key in TEXTS},
            "seed": pa.array([cell.get("seed") for cell in cells], pa.int64()),
            **{key: pa.array(_floats(values), pa.float64()) for key, values in numbers.items()},
            "items": pa.array([_floats(cell.get("items")) for cell in cells], pa.list_(pa.float64())),
            "curve": pa.array([_points(cell.get("curve")) for cell in cells], points),
        }
    except (pa.ArrowException, OverflowError) as error:
        raise PacelineError(f"The result does not fit a table ({error}): it is damaged or hand-edited.") from error
    version = clean["environment"].get("paceline", __version__)
    facts = {"paceline": version, "created": clean["created"], "title": clean["title"]}
    return pa.table(columns).replace_schema_metadata(facts)


def export(result: dict[str, Any], path: Path) -> Path:
    """Write the result to `path`, atomically, in the format that its suffix names, and return it.

    Raises:
        PacelineError: another suffix than .html, .parquet or .csv, or a malformed result.
        OSError: `path` cannot be written.
    """
    return format_of(path)(result, path)


def format_of(path: Path) -> Callable[[dict[str, Any], Path], Path]:
    """What writes files of this suffix.

    Raises:
        PacelineError: there is none.
    """
    known = {".html": write_html, ".parquet": _write_parquet, ".csv": _write_csv}
    if path.suffix.lower() not in known:
        raise PacelineError(f"Cannot write {path}: give a name that ends in .html, .parquet or .csv.")
    return known[path.suffix.lower()]


def _write_parquet(result: dict[str, Any], path: Path) -> Path:
    from pyarrow import parquet

    content = io.BytesIO()
    parquet.write_table(cells_table(result), content)
    write_atomic(path, content.getvalue())
    return path


def _write_csv(result: dict[str, Any], path: Path) -> Path:
    from pyarrow import csv

    content = io.BytesIO()
    csv.write_csv(cells_table(result).drop_columns(list(LISTS)), content)
    write_atomic(path, content.getvalue())
    return path


def _items(items: Any, where: str) -> list[float] | None:
    """Scores of a cell item by item; none in a failed one."""
    numbers = isinstance(items, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in items)
    if items is not None and not numbers:
        raise PacelineError(f"{where} must be a list of numbers: the result is damaged or hand-edited.")
    return items


def _floats(values: Sequence[float | None] | None) -> list[float | None] | None:
    """Arrow refuses whole numbers that a float64 must round."""
    return None if values is None else [None if value is None else float(value) for value in values]


def _points(curve: Sequence[Sequence[float]] | None) -> list[dict[str, float]] | None:
    return None if curve is None else [{"tokens": float(tokens), "loss": float(loss)} for tokens, loss in curve]
