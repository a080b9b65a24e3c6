"""Publish races: `python benchmarks/races.py [NAME runs/.../result.json]`, after `make race`.

NAME is `default`, `decoders` or `policies`: writes results/race/NAME.json (without the items and traces), the picture
beside it, and the README's table between its marks.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from paceline.core.files import seal, write_atomic
from paceline.report import picture

ROOT = Path(__file__).parents[1]
STORED = ROOT / "results" / "race"


def decoded(result: dict[str, Any]) -> str:
    """The same of ways to decode: what they are measured by, and what they hold."""
    lines = ["| task | contestant | score (95 % interval) | state, MiB | seeds |", "|---|---|---|---|---|"]
    for task in result["tasks"]:
        title = f"{task['title']}: {task['metric']}, {task['better']} is better"
        for row in result["standings"][task["name"]]:
            low, high = row["interval"]
            states = [
                c["ledger"]["state_bytes"]
                for c in result["cells"]
                if c["task"] == task["name"] and c["contestant"] == row["contestant"] and c["status"] == "done"
            ]
            lines.append(
                f"| {title} | `{row['contestant']}` | {row['mean']:.3f} ({low:.3f} to {high:.3f}) | "
                f"{sum(states) / len(states) / 2**20:.1f} | {row['seeds']} |"
            )
            title = ""
    return "\n".join(lines)


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


def publish(name: str, result: dict[str, Any]) -> None:
    """Write the three."""
    slim = seal({**result, "cells": [{**c, "items": [], "trace": None} for c in result["cells"]]})
    write_atomic(STORED / f"{name}.json", json.dumps(slim) + "\n")
    picture(result, STORED / f"{name}.svg")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    begin, told = f"<!-- {name} race -->", markdown(result) if name == "default" else decoded(result)
    table = f"{begin}\n{result['answer']}\n\n{told}\n<!-- end -->"
    write_atomic(readme, re.sub(f"{begin}.*?<!-- end -->", lambda _: table, text, flags=re.DOTALL))


if __name__ == "__main__":
    name, path = sys.argv[1:] if len(sys.argv) > 1 else ("default", ROOT / "runs" / "default" / "result.json")
    publish(name, json.loads(Path(path).read_text(encoding="utf-8")))
