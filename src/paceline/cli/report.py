"""`paceline report`: the result of a race as a page or a table, or into a tracker of experiments."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from paceline.core.errors import PacelineError, suggest
from paceline.core.files import sealed
from paceline.report import write
from paceline.report.export import export, format_of
from paceline.report.loggers import log_to_mlflow, log_to_trackio

LOGGERS = ("mlflow", "trackio")


def run(race: Path, to: Path | None, log: str | None, project: str | None) -> None:
    """Write `to`, log, or both; with neither, write the race's page anew. Print where it went."""
    if log is not None and log not in LOGGERS:
        raise PacelineError(f"--log takes mlflow or trackio, not {log!r}.{suggest(log, LOGGERS)}")
    if project is not None and log is None:
        raise PacelineError("--project names where --log puts the runs: give --log mlflow or --log trackio with it.")
    if to is not None:
        format_of(to)  # refused before anything is logged
    path = race / "result.json" if race.is_dir() else race
    result, page = _read(path), path.with_name("report.html")
    said: list[str] = []
    if to is not None:
        said.append(f"Written: {export(result, to)}")
    elif log is None:
        said.append(f"Report: {write(result, page)}")
    if log == "mlflow":
        number = log_to_mlflow(result, project or "paceline", page)
        said.append(f"Logged to MLflow: experiment {project or 'paceline'}, run {number}")
    elif log == "trackio":
        group = log_to_trackio(result, project or "paceline")
        said.append(f"Logged to trackio: project {project or 'paceline'}, group {group!r}")
    console = Console()
    for line in said:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PacelineError(f"There is no {path}: give the folder of a finished race, or its result.json.") from error
    except (ValueError, RecursionError) as error:
        raise PacelineError(f"{path} is not readable JSON: the race's own command writes it anew.") from error
    if not isinstance(found, dict):
        raise PacelineError(f"{path} is not the result of a race: give the folder of a finished one.")
    if "sha256" in found and not sealed(found):
        raise PacelineError(f"{path} was damaged or changed: the race's own command writes it anew.")
    return found
