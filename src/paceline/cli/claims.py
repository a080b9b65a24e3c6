"""`paceline claim` and `paceline claims`."""

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paceline.claims._sources import stale
from paceline.claims._store import check_budget, claims, find_claim, is_fresh, store, stored_verdict
from paceline.core.errors import PacelineError
from paceline.core.marks import MARKS

WORDS = {True: "yes", False: "no", None: "-"}


def run(method: str, budget: str, out: Path, again: bool, reproduce: bool, as_json: bool) -> None:
    """Run one claim, unless its verdict on file is fresh; print the verdict and where it is stored.

    With `reproduce` only one seed is run, to see whether changed code moved anything (`claims/_reproduce.py`).
    """
    from paceline.claims._reproduce import reproduce as reproduced
    from paceline.claims._run import run_claim
    from paceline.cli.progress import Progress

    family, method = find_claim(method)
    check_budget(budget)
    console = Console(stderr=as_json, highlight=False)
    if again and reproduce:
        raise PacelineError("Give --again to run all of the claim, or --reproduce to run one seed of it.")
    verdict = None if again or budget == "smoke" else stored_verdict(family, method, budget)
    if reproduce and verdict is None:
        raise PacelineError(f"There is no verdict on {method} to reproduce: run `paceline claim {method}`.")
    if verdict is not None and is_fresh(verdict):
        console.print("On file, of this very code (--again runs it anew):", markup=False)
    else:
        try:
            with Progress(console) as progress:
                if reproduce and verdict is not None:
                    out.mkdir(parents=True, exist_ok=True)
                    verdict = reproduced(verdict, out, progress)
                else:
                    verdict = run_claim(method, budget, out, progress)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            console.print(f"Stopped. Finished cells are kept in {out}: the same command goes on from there.")
            raise typer.Exit(130) from None
        if budget != "smoke":
            console.print(f"Stored: {store(verdict)}", markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps(verdict))
    else:
        _print(console, verdict)


def _print(console: Console, verdict: dict[str, Any]) -> None:
    """The claim, its bars, marks and verdict."""
    console.print(verdict["claim"], markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("task", "measure", "a better than b", "by more than", "mean", "95 % interval", "p, Holm", "verdict"):
        table.add_column(name)
    for row in (*verdict["bars"], *verdict["shams"]):
        low, high = row["interval"] or (float("nan"),) * 2
        table.add_row(
            row["task"], row["measure"], f"{row['a']} / {row['b']}", f"{row['by']:g}", f"{row['mean']:+.3f}",
            f"{low:+.3f} to {high:+.3f}", f"{row['p_holm']:.3f}", row["verdict"],
        )  # fmt: skip
    console.print(table)
    marks = ", ".join(f"{mark} {WORDS[value]}" for mark, value in verdict["marks"].items())
    console.print(f"{verdict['verdict']}. Marks: {marks}. {verdict['limits']}", markup=False)


def print_claims(as_json: bool) -> None:
    """Every claim, its verdict on the CPU budget, and whether code or versions have changed since."""
    rows: list[dict[str, Any]] = []
    for family, method in claims():
        verdict = stored_verdict(family, method, "cpu")
        found = verdict or {"marks": dict.fromkeys(MARKS)}
        rows.append({
            "family": family, "method": method,
            "verdict": found.get("verdict"), "marks": found["marks"], "effect": found.get("effect"),
            "stale": stale(found) if verdict else "never run", "claim": found.get("claim"),
        })  # fmt: skip
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("claim", "verdict", "lacks", "state", "effect"):
        table.add_column(name, no_wrap=name == "claim")
    for row in rows:
        lacks = [mark for mark in MARKS if not row["marks"][mark]]
        state = "fresh" if row["stale"] is None else "stale" if row["verdict"] else row["stale"]
        effect = (row["effect"] or "-").removeprefix(f"{row['verdict']}: ")
        words = (f"{row['family']}/{row['method']}", row["verdict"] or "-", ", ".join(lacks) or "-", state, effect)
        table.add_row(*map(Text, words))
    console = Console(highlight=False)
    console.print(table)
    if old := [row["method"] for row in rows if row["verdict"] and row["stale"]]:
        console.print(
            f"Stale: what {len(old)} verdicts rest on was edited since (--json tells what). `paceline claim {old[0]} "
            "--reproduce` runs one seed, to see whether that moved a number.",
            markup=False,
        )
