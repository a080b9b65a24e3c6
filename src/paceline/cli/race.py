"""`paceline race`: from options to a race, a table, a page and a kept model."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from paceline.cli.events import CONTESTANTS, DEFAULT_OUT, task_event, text_event
from paceline.cli.keeping import result_of
from paceline.cli.numbers import check_numbers
from paceline.cli.progress import Progress
from paceline.core.discovery import methods
from paceline.core.errors import PacelineError, suggest
from paceline.core.lock import hold
from paceline.core.spec import parse, summands
from paceline.race.contestant import Contestant, Event, Model
from paceline.race.run import race
from paceline.report import table, write


def run(
    contestants: Sequence[str],
    text: Sequence[str],
    task: str | None,
    field: str | None,
    tokens: int | None,
    seeds: int | None,
    params: int | None,
    out: Path | None,
    keep: Path | None,
    confirm: bool,
    form: str,
    feed_forward: str,
    on: str,
    as_json: bool,
) -> None:
    """Race, then print the tables, where the page and the winner are, and the command that uses it."""
    if text and task is not None:
        raise PacelineError("Give --text or --task, not both.")
    check_numbers(tokens=tokens, params=params, seeds=seeds)
    shape = [given for given in (form, feed_forward) if given not in ("decoder", "swiglu")]
    everything = (list(contestants), list(text), task, field, tokens, seeds, params, *shape)
    if out is None:
        plain = not any(everything)
        out = (
            DEFAULT_OUT if plain else Path("runs") / f"race-{hashlib.sha256(repr(everything).encode()).hexdigest()[:8]}"
        )
    models = [_trained(name, form, feed_forward) for name in contestants or CONTESTANTS]
    events = _events(text, task, field, out, tokens, params)
    run_and_show(models, events, out, as_json, confirm=confirm, seeds=seeds, keep_in=keep, on=on)


def _trained(text: str, form: str, feed_forward: str) -> Model:
    """A mixer, an optimizer, or one with the other: `seqboat + soap`. Attention with AdamW is what is not named.

    Raises:
        PacelineError: two of a kind.
    """
    named: dict[str, str] = {}
    for summand in summands(text):
        name = parse(summand).name
        family = "optim" if name in methods("optim") else "mixers"
        if near := suggest(name, methods("optim")) if name not in methods("mixers") + methods("optim") else "":
            raise PacelineError(f"There is no method {name!r} in mixers or optim.{near} `paceline list` shows all.")
        if family in named:
            raise PacelineError(f"{text[:80]!r} names {named[family]} and {name}: a model takes one of {family}.")
        named[family] = summand
    mixer, optimizer = named.get("mixers", "attention"), named.get("optim", "adamw")
    shown = text if "optim" in named else None
    return Model(mixer, form=form, feed_forward=feed_forward, optimizer=optimizer, name=shown)


def run_and_show(
    contestants: Sequence[Contestant],
    events: Sequence[Event],
    out: Path,
    as_json: bool,
    use: Callable[[str], str] | None = None,
    **options: Any,
) -> None:
    """Race with progress, write the page, print the tables or JSON.

    Args:
        contestants: of any kind.
        events: their tasks.
        out: the race's folder.
        as_json: print the result as JSON instead of tables.
        use: the command that uses a winner that left no model, from its name; it may keep the winner, and say so in
            the stored result.
        options: of `race`.

    Raises:
        PacelineError: as `race`, or every cell failed.
    """
    console = Console(stderr=as_json)
    if out.exists() and not out.is_dir():
        raise PacelineError(f"--out {out} is a file: give a folder.")
    try:
        with Progress(console) as progress:
            result = race(contestants, events, out=out, watcher=progress, **options)
    except KeyboardInterrupt:
        console.print(
            f"Stopped. Finished cells are kept in {out}: the same command goes on from there.", highlight=False
        )
        raise typer.Exit(130) from None
    page = write(result, out / "report.html")
    if not as_json:
        show_result(console, result, page)
    if use is not None and result["winner"]:
        command = use(result["winner"]["contestant"])
        if not as_json:
            console.print(f"Use it: {command}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(result_of(out)))
    if all(cell["status"] == "failed" for cell in result["cells"]):
        raise PacelineError(f"Every cell failed; the first said: {result['cells'][0]['reason']}")


def show_result(console: Console, result: dict[str, Any], page: Path) -> None:
    """The tables, the answer, and where everything is."""
    for task in result["tasks"]:
        console.print(table(result, task["name"]))
    console.print(result["answer"], markup=False, highlight=False)
    if result["confirmation"]:
        console.print(result["confirmation"]["sentence"], markup=False, highlight=False)
    console.print(f"\nReport: {page}", markup=False, highlight=False, soft_wrap=True)
    winner = result["winner"]
    if winner and winner["folder"]:
        console.print(
            f"Winner: {winner['contestant']} (seed {winner['seed']}) in {winner['folder']}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        if winner["command"]:
            console.print(f"Use it: {winner['command']}", markup=False, highlight=False, soft_wrap=True)


def _events(
    text: Sequence[str], task: str | None, field: str | None, out: Path, tokens: int | None, params: int | None
) -> list[Event]:
    """Text and recall by default; what the user names otherwise."""
    if task is not None:
        return [task_event(task, tokens, params)]
    with hold(out, "race"):  # no two races write their text there at once
        events = [text_event(text, field, out, tokens, params)]
    return events if text else [*events, task_event("recall", tokens, params)]
