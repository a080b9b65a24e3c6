"""Publish a default race: `python benchmarks/default_race.py [runs/default/result.json]`, after `make race`.

Writes results/race/default.json (without the items and traces), the README's picture, and the README's table.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from paceline.core.files import seal, write_atomic
from paceline.report import picture

ROOT = Path(__file__).parents[1]
STORED = ROOT / "results" / "race" / "default.json"


def markdown(result: dict[str, Any]) -> str:
    """The standings of every task as one Markdown table."""
    lines = ["| task | contestant | score (95 % interval) | GFLOP | state, KiB | seeds |", "|---|---|---|---|---|---|"]
    for task in result["tasks"]:
        arrow = "lower is better" if task["better"] == "lower" else "higher is better"
        title = f"{task['title']}: {task['metric']}, {arrow}"
        for row in result["standings"][task["name"]]:
            ledger = next(
                c["ledger"]
                for c in result["cells"]
                if c["task"] == task["name"] and c["contestant"] == row["contestant"] and c["status"] == "done"
            )
            flops = sum(
                c["ledger"]["flops"]
                for c in result["cells"]
                if c["task"] == task["name"] and c["contestant"] == row["contestant"] and c["status"] == "done"
            )
            low, high = row["interval"]
            lines.append(
                f"| {title} | `{row['contestant']}` | {row['mean']:.3f} ({low:.3f} to {high:.3f}) | "
                f"{flops / row['seeds'] / 1e9:.0f} | {ledger['state_bytes'] / 1024:.0f} | {row['seeds']} |"
            )
            title = ""
    return "\n".join(lines)


def publish(result: dict[str, Any]) -> None:
    """Write the three."""
    slim = seal({**result, "cells": [{**c, "items": [], "trace": None} for c in result["cells"]]})
    write_atomic(STORED, json.dumps(slim) + "\n")
    picture(result, STORED.with_suffix(".svg"))
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    table = f"<!-- default race -->\n{result['answer']}\n\n{markdown(result)}\n<!-- end -->"
    write_atomic(readme, re.sub(r"<!-- default race -->.*?<!-- end -->", lambda _: table, text, flags=re.DOTALL))


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs" / "default" / "result.json"
    publish(json.loads(path.read_text(encoding="utf-8")))
