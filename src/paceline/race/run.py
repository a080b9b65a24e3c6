"""The race: search settings, run the grid, assemble the result, keep the winner."""

import ast
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from paceline.core.errors import PacelineError
from paceline.core.files import seal, write_json
from paceline.core.lock import Lock, hold
from paceline.race.cell import Cell, read_record
from paceline.race.confirm import SEEDS, confirmation_cells
from paceline.race.contestant import Contestant, Event, Model
from paceline.race.grid import PILOT_SEED, Grid
from paceline.race.keep import check_keep, keep
from paceline.race.on_ray import run_on_ray
from paceline.race.pool import Limits, Watch, default_limits, run_cells
from paceline.race.result import assemble
from paceline.race.statistics import seeds_needed
from paceline.race.watcher import Watcher

Runner = Callable[[Sequence[Cell], Limits, Watch, Lock | None], Iterator[Cell]]
"""Where cells run."""


def race(
    contestants: Sequence[str | Contestant],
    events: Sequence[Event],
    *,
    out: Path,
    seeds: int | Sequence[int] | None = None,
    confirm: bool = False,
    keep_in: Path | None = None,
    limits: Limits | None = None,
    watcher: Watcher | None = None,
    on: str = "here",
) -> dict[str, Any]:
    """Race the contestants on every event and return the result (also `out/result.json`).

    Call it again with the same arguments to continue an interrupted race: finished cells are not repeated.
    In a script, call it under `if __name__ == "__main__":`.

    Args:
        contestants: mixers by name, e.g. `attention(window=64)`, or contestants of any kind.
        events: tasks, each with its budget; the winner is the best on the first.
        out: folder of this race.
        seeds: replicates, or which ones. Default: the fewest that can resolve all pairs under Holm.
        confirm: race the winner against its runner-up once more on fresh seeds; a finished race can be continued so.
        keep_in: folder for the winner's model. Default: `out/winner`.
        limits: cells at a time, and what each may take. Default: one a core.
        watcher: hears of progress.
        on: `here`, in processes of this machine, or `ray`, on a Ray cluster (see `race.on_ray`).

    Raises:
        PacelineError: an unknown contestant, a budget too small, a folder of another race or in use by one, a full
            disk, or a call from a script without the guard.
    """
    if on not in ("here", "ray"):
        raise PacelineError(f"A race runs on here or on ray, not on {on!r}.")
    _check_main()
    entrants = [Model(c) if isinstance(c, str) else c for c in contestants]
    names = [c.name for c in entrants]
    tasks = [event.task.name for event in events]
    if not names or len(set(names)) < len(names):
        raise PacelineError("A race needs contestants, each named once." if names else "A race needs a contestant.")
    if len(set(tasks)) < len(tasks):  # a cell's place has the task's name in it
        raise PacelineError(f"Two tasks are named {max(tasks, key=tasks.count)}: race them one after the other.")
    pairs = len(entrants) * (len(entrants) - 1) // 2
    seeds = seeds_needed(max(1, pairs)) if seeds is None else seeds
    chosen = range(seeds) if isinstance(seeds, int) else list(seeds)
    if not chosen:
        raise PacelineError(f"A race needs at least 1 seed, not {seeds}.")
    if len(set(chosen)) < len(chosen) or min(chosen) < 0 or PILOT_SEED in chosen:
        raise PacelineError(f"Seeds are numbers from 0 on, each once, and none is {PILOT_SEED}, unlike {seeds}.")
    for contestant in entrants:
        for event in events:
            contestant.check(event)
    grid = Grid(entrants, events, chosen, out)
    folder = out / "winner" if keep_in is None else keep_in
    with hold(out, "race") as lock:
        runner = run_on_ray if on == "ray" else run_cells
        return _race(grid, folder, confirm, runner, limits, watcher or Watcher(), lock)


def _race(
    grid: Grid, folder: Path, confirm: bool, runner: Runner, limits: Limits | None, watcher: Watcher, lock: Lock
) -> dict[str, Any]:
    """The race in its folder, which nobody else uses meanwhile."""
    if (grid.folder / "race.json").exists():  # of another race we say so before we look at its winner
        grid.claim()
    check_keep(folder, grid)
    grid.claim()
    tuning = grid.tuning()
    confirming = 2 * SEEDS if confirm and len(grid.contestants) > 1 else 0
    watcher.begin(len(tuning) + len(grid.seeds) * len(grid.contestants) * len(grid.events) + confirming)

    def run(cells: Sequence[Cell]) -> None:
        for cell in cells:
            if (record := read_record(cell)) is not None:
                watcher.finish(cell, record)
        for cell in runner(cells, limits or default_limits(), watcher.step, lock):
            record = read_record(cell)
            assert record is not None
            watcher.finish(cell, record)

    run(tuning)
    run(list(grid.race()))
    result = assemble(grid)
    if confirm:
        again = confirmation_cells(grid, result)
        run(again)
        result = assemble(grid, again)
    result["winner"] = keep(grid, result, folder)
    shutil.rmtree(grid.folder / "checkpoints", ignore_errors=True)  # of a cell killed between its record and this
    result = seal(result)
    write_json(grid.folder / "result.json", result)
    return result


def _check_main() -> None:
    """Refuse a call that every cell's process would repeat when it imports the main script."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            line = frame.f_lineno
            try:
                body = ast.parse(Path(frame.f_code.co_filename).read_bytes()).body
            except (OSError, ValueError, SyntaxError):  # a prompt or a notebook: no file that a cell would import
                continue
            statement = next((s for s in body if s.lineno <= line <= (s.end_lineno or line)), None)
            names = ast.walk(statement.test) if isinstance(statement, ast.If) else ()
            if statement is not None and not any(isinstance(n, ast.Name) and n.id == "__name__" for n in names):
                raise PacelineError(
                    "Put the call of race() under `if __name__ == '__main__':`, because its cells import your file."
                )
