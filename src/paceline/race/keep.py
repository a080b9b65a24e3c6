"""The end of a race is a model: which one, and where it is kept."""

import json
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

from paceline.core.errors import PacelineError
from paceline.core.files import write_json
from paceline.lm.checkpoint import verify
from paceline.race.cell import Cell
from paceline.race.grid import Grid

MARK = "race.json"
"""Beside a kept model: the race that it won."""
PARTS = ("cells", "checkpoints", "corpus", "models")
"""Folders of a race that no winner may replace."""


def check_keep(folder: Path, grid: Grid) -> None:
    """Refuse a folder that would swallow something else, or that cannot be written, before anything is trained.

    Raises:
        PacelineError: it holds or would hold the race itself, it exists and was not written by this same race, or
            nothing can be written beside it.
    """
    place, race = folder.resolve(), grid.folder.resolve()
    if race.is_relative_to(place) or any(place.is_relative_to(race / part) for part in PARTS):
        raise PacelineError(f"--keep {folder} is where the race itself is kept: choose another --keep.")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder.parent).close()
        except OSError as error:
            why = error.strerror
            raise PacelineError(f"Cannot write to {folder.parent} ({why}): choose another --keep.") from error
        return
    try:
        if json.loads((folder / MARK).read_text(encoding="utf-8"))["identity"] == grid.identity():
            return
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise PacelineError(f"{folder} is not empty and not the winner of this race: choose another --keep.")


def winner(grid: Grid, result: dict[str, Any]) -> tuple[dict[str, Any], Cell] | None:
    """The best contestant of the first event that has one, by mean; its best seed stands for it."""
    for event in grid.events:
        best = result["standings"][event.task.name][0]["contestant"]
        sign = 1 if event.task.better == "higher" else -1
        done = [
            (sign * record["score"], -record["seed"], cell)
            for cell, record in zip(grid.race(), result["cells"], strict=True)
            if record["status"] == "done" and record["contestant"] == best and record["task"] == event.task.name
        ]
        if done:
            cell = max(done, key=lambda entry: entry[:2])[2]
            facts = {
                "task": event.task.name,
                "contestant": best,
                "seed": cell.job.seed,
                "folder": None,
                "command": None,
            }
            return facts, cell
    return None


def keep(grid: Grid, result: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """Copy the winner's model to `folder` and drop the losers' models.

    Returns:
        What the result says of the winner; None where no cell finished.

    Raises:
        PacelineError: the winner's model was damaged; its cell is struck out, so that it runs again.
    """
    found = winner(grid, result)
    if found is None:
        return None
    facts, cell = found
    source = cell.job.model_folder
    if source is not None and source.is_dir():
        try:
            verify(source)
        except PacelineError as error:  # a good winner of an earlier call must not make room for it
            cell.record.unlink()
            raise PacelineError(f"{error} Its cell counts as not run: the same command runs it again.") from error
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            shutil.copytree(source, temporary / "new")
            write_json(temporary / "new" / MARK, {"identity": grid.identity(), **facts})
            if folder.exists():  # moved first: half removed, it would be taken for a stranger's
                os.replace(folder, temporary / "old")
            os.replace(temporary / "new", folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    elif not (folder / MARK).is_file():  # a contestant that leaves no model
        return facts
    facts["folder"] = str(folder)
    if facts["task"] == "text":
        facts["command"] = f"paceline generate {shlex.quote(str(folder))} --prompt 'The '"
    for other in list((grid.folder / "models").rglob("*.safetensors")):
        if source is None or other.parent != source:
            shutil.rmtree(other.parent)
    return facts
