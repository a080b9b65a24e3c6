"""Exports hold what the result holds, to the last bit, and refuse what is damaged."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _pages import race
from pyarrow import csv, parquet

from paceline.core.errors import PacelineError
from paceline.report import render
from paceline.report.export import cells_table, export

THIRDS = [1 / 3, 2 / 3, 1e-300, -0.1, 5]


def result() -> dict[str, Any]:
    """Two contestants, three seeds; with items, a meter that one cell alone has, numbers with all their bits."""
    found = race()
    for cell in found["cells"]:
        if cell["status"] == "done":
            cell |= {"items": THIRDS, "score": cell["score"] + 1 / 3}
    found["cells"][0]["meters"] = {"activated.0": 1 / 7}
    fresh = {"contestant": "seqboat", "seed": 3, "status": "done", "reason": None, "score": 1.9}
    found["confirmation"] = {"task": "text", "a": "seqboat", "b": "ema", "verdict": "confirmed", "sentence": "Yes.",
                             "cells": [fresh]}  # fmt: skip
    return found


def prefixed(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix) and v is not None}


def test_parquet_gives_back_every_number_of_every_cell(tmp_path: Path) -> None:
    given = result()
    rows = parquet.read_table(export(given, tmp_path / "deep" / "x.parquet")).to_pylist()
    cells = [row for row in rows if row["phase"] == "race"]
    assert len(cells) == len(given["cells"]) == 6
    for row, cell in zip(cells, given["cells"], strict=True):
        for key in ("task", "contestant", "seed", "status", "reason", "score", "lr", "curve_unit"):
            assert row[key] == cell[key], key
        assert prefixed(row, "ledger_") == cell["ledger"] and prefixed(row, "meter_") == cell["meters"]
        assert row["items"] == cell.get("items")
        assert [[point["tokens"], point["loss"]] for point in row["curve"]] == cell["curve"]


def test_the_search_and_a_confirmation_are_rows_too(tmp_path: Path) -> None:
    given = result()
    rows = parquet.read_table(export(given, tmp_path / "x.parquet")).to_pylist()
    tuning = [row for row in rows if row["phase"] == "tuning"]
    keys = ("task", "contestant", "lr", "score", "status", "reason")
    assert [{key: row[key] for key in keys} for row in tuning] == given["tuning"]
    (fresh,) = (row for row in rows if row["phase"] == "confirmation")
    assert {**given["confirmation"]["cells"][0], "task": "text"}.items() <= fresh.items()
    assert all(row["items"] is row["curve"] is row["ledger_tokens"] is None for row in (*tuning, fresh))


def test_parquet_says_where_it_is_from(tmp_path: Path) -> None:
    given = result()
    given["environment"]["paceline"] = "9.8.7"
    metadata = parquet.read_schema(export(given, tmp_path / "x.parquet")).metadata
    assert metadata[b"title"] == b"A small race" and metadata[b"created"] == b"2025-01-02T03:04:05"
    assert metadata[b"paceline"] == b"9.8.7"


def test_csv_is_the_same_table_without_the_lists(tmp_path: Path) -> None:
    given = result()
    given["cells"][-1]["reason"] = 'it said "no",\nand stopped'
    whole = cells_table(given).drop_columns(["items", "curve"])
    path = export(given, tmp_path / "x.CSV")
    options = csv.ConvertOptions(column_types=whole.schema, strings_can_be_null=True, quoted_strings_can_be_null=False)
    read = csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=options)
    assert read.to_pylist() == whole.to_pylist()


def test_html_is_the_report(tmp_path: Path) -> None:
    assert export(result(), tmp_path / "x.html").read_text() == render(result())


def test_a_race_in_which_nothing_finished_is_a_table_too(tmp_path: Path) -> None:
    given = race()
    given["cells"], given["tuning"] = given["cells"][-1:], []
    (row,) = parquet.read_table(export(given, tmp_path / "x.parquet")).to_pylist()
    assert (row["status"], row["score"], row["items"]) == ("failed", None, None)
    given["cells"] = []
    assert parquet.read_table(export(given, tmp_path / "y.parquet")).num_rows == 0


def test_numbers_that_are_none_are_null() -> None:
    given = result()
    given["cells"][0] |= {"score": math.nan, "curve": [[1, math.inf], [2, 1.5]]}
    first = cells_table(given).to_pylist()[0]
    assert first["score"] is None and first["curve"] == [{"tokens": 2.0, "loss": 1.5}]


@pytest.mark.parametrize("name", ["x", "x.json", "x.parquet.gz", ".csv"])
def test_an_unknown_suffix_is_refused_and_nothing_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(PacelineError, match=r"give a name that ends in \.html, \.parquet or \.csv\."):
        export(result(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.pop("cells"), "result lacks 'cells'"),
        (lambda r: r["cells"][1].update(items=[1.0, "2"]), r"result\.cells\[1\]\.items must be a list of numbers"),
        (lambda r: r["cells"][1].update(items={"0": 1}), r"result\.cells\[1\]\.items must be a list of numbers"),
        (lambda r: r["cells"][1].update(items=[True]), r"result\.cells\[1\]\.items must be a list of numbers"),
        (lambda r: r["cells"][1].update(items=[10**400]), "does not fit a table"),
        (lambda r: r["cells"][1].update(seed=2**70), "does not fit a table"),
    ],
)
def test_a_damaged_result_is_refused_and_the_old_file_kept(
    change: Callable[[dict[str, Any]], Any], says: str, tmp_path: Path
) -> None:
    given = result()
    path = export(given, tmp_path / "x.parquet")
    before = path.read_bytes()
    change(given)
    with pytest.raises(PacelineError, match=says):
        export(given, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_same_result_gives_the_same_bytes_and_is_not_changed(tmp_path: Path) -> None:
    given = result()
    before = json.dumps(given)
    first, second = (export(given, tmp_path / name).read_bytes() for name in ("a.parquet", "b.parquet"))
    assert first == second and json.dumps(given) == before
