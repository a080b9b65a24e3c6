"""`paceline race ... --on-model MODEL --text FILE`: ways to adapt one given model to text, side by side."""

import hashlib
import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from paceline.cli.events import corpus
from paceline.cli.keeping import keep_winner, result_of
from paceline.cli.numbers import check_numbers
from paceline.cli.race import run_and_show
from paceline.core.errors import PacelineError
from paceline.core.lock import hold
from paceline.lm.adapted import text_task
from paceline.lm.siblings import known_or_folder
from paceline.race.adapting import BASE, Adapted, adapter
from paceline.race.contestant import Event, Job
from paceline.race.pool import Limits, default_limits

CONTESTANTS = ("lora", "full")
TOKENS, LENGTH, BATCH, ITEMS = 512, 64, 1, 8
"""Training tokens, window, windows of a step, windows measured: so little that two contestants take three minutes with
SmolLM2 on two cores."""
COPIES = 6
"""Of a model's weights that a cell may hold: themselves, gradient, two moments, what opening and logits take."""


def run(
    contestants: Sequence[str],
    model: str,
    text: Sequence[str],
    field: str | None,
    tokens: int | None,
    seeds: int | None,
    out: Path | None,
    keep: Path | None,
    confirm: bool,
    as_json: bool,
) -> None:
    """Race, print the tables and where the page is, and keep the winner merged into the model, ready to generate."""
    check_numbers(tokens=tokens, seeds=seeds)
    names = [name for name in contestants or CONTESTANTS if name != BASE]
    if not names:
        raise PacelineError(f"{BASE} races by itself: name what is to be trained, such as {' '.join(CONTESTANTS)}.")
    models = [Adapted(name, model) for name in names]
    folder = known_or_folder(model)
    if out is None:
        everything = repr((names, model, list(text), field, tokens, seeds))
        out = Path("runs") / f"adapt-{hashlib.sha256(everything.encode()).hexdigest()[:8]}"
    if out.exists() and not out.is_dir():
        raise PacelineError(f"--out {out} is a file: give a folder.")
    with hold(out, "race"):  # no two races write their text there at once
        task: Any = text_task(model, corpus(text, field, out), LENGTH)
    task.items, task.model = ITEMS, model  # a task that names a model has its cells' imports done beforehand
    event, limits = Event(task, tokens or TOKENS, 0, BATCH), _limits(folder)
    console = Console(stderr=as_json)

    def use(winner: str) -> str:
        return _use(out, keep, winner, models, event, limits, console)

    run_and_show(
        [Adapted(BASE, model), *models], [event], out, as_json, use,
        seeds=seeds, confirm=confirm, keep_in=keep, limits=limits,
    )  # fmt: skip


def train(
    model: str,
    how: str,
    out: Path,
    text: Sequence[str],
    field: str | None = None,
    tokens: int = 20_000,
    length: int = LENGTH,
    batch: int = BATCH,
    lr: float | None = None,
    seed: int = 0,
) -> None:
    """`paceline train MODEL --adapt HOW`: one adapter trained on text, saved as the race saves its winner.

    Args:
        lr: peak learning rate. Default: the middle one of those that a race would choose from.

    Raises:
        PacelineError: as the race; or `out` holds something.
    """
    check_numbers(tokens=tokens, length=length, batch=batch)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PacelineError(f"--out {out} is not an empty folder: choose another.")
    usual = adapter(how).rates[1]
    rate = usual if lr is None else lr
    known_or_folder(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as work:
        task = text_task(model, corpus(text, field, Path(work)), length)
        event, contestant = Event(task, tokens, 0, batch), Adapted(how, model, rates=(rate,), keeps=True)
        contestant.check(event)
        console = Console()

        def show(done: int, of: int, loss: float) -> None:
            console.print(f"step {done} of {of}: {loss:.3f} {task.loss_unit}", highlight=False)

        try:
            made = contestant.run(Job(event, seed, rate, Path(work) / "checkpoints", Path(work) / "new"), show)
        except KeyboardInterrupt:
            raise PacelineError(f"Stopped: nothing was kept in {out}.") from None
        os.replace(Path(work) / "new", out)
    score, share = sum(made.items) / len(made.items), made.meters["trained_share"]
    console.print(
        f"{how}: {score:.3f} {task.metric} on held-out text, {made.ledger.parameters:,} numbers trained "
        f"({share:.2%} of the model), {made.ledger.tokens:,} tokens in {made.ledger.seconds:.0f} s",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    use = f"paceline generate {shlex.quote(str(out))} --prompt 'The '"
    console.print(f"Use it: {use}", markup=False, highlight=False, soft_wrap=True)


def _limits(folder: Path) -> Limits:
    """One cell a core, or fewer where the model is too large for that, with the cores divided among them."""
    usual = default_limits()
    need = COPIES * sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    room = int(0.8 * psutil.virtual_memory().total / max(1, need))
    workers = max(1, min(usual.workers, room))
    memory = int(0.9 * psutil.virtual_memory().total / workers)
    return Limits(workers=workers, threads=max(1, (os.cpu_count() or 1) // workers), memory=memory)


def _use(
    out: Path, keep: Path | None, winner: str, models: Sequence[Adapted], event: Event, limits: Limits, console: Console
) -> str:
    """The command that uses the winner, which is trained once more to be kept: a model a cell would fill the disk."""
    asked = f"paceline generate {shlex.quote(str(keep or models[0].model))} --prompt 'The '"
    for name, trained, share, size in _costs(result_of(out)):
        line = f"{name}: {trained:,} numbers trained, {share:.2%} of the model; {size:.1f} MiB to keep by itself"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if winner == BASE:
        return f"{asked if keep is None else asked.replace(str(keep), models[0].model)} (as it was: nothing did better)"
    if keep is None:
        return "the same command with --keep DIR, which saves the winner merged into the model"
    result = result_of(out)
    facts = result["winner"]
    if facts["folder"] is None:
        keep_winner(out, keep, Adapted(facts["contestant"], models[0].model, keeps=True), event, limits)
        console.print(f"Kept: {facts['contestant']} (seed {facts['seed']}), merged, in {keep}; as it was trained in "
                      f"{keep / 'adapter'}", markup=False, highlight=False, soft_wrap=True)  # fmt: skip
    return asked


def _costs(result: dict[str, Any]) -> list[tuple[str, int, float, float]]:
    """Of each contestant that trained: how many numbers, their share of the model's, and MiB to keep them."""
    done = {c["contestant"]: c for c in result["cells"] if c["status"] == "done" and c["contestant"] != BASE}
    return [
        (name, int(cell["ledger"]["parameters"]), cell["meters"]["trained_share"], cell["meters"]["kept_mib"])
        for name, cell in done.items()
    ]
