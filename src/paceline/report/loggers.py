"""A race's result -> MLflow or trackio: one run for each cell, all in one parent run or group.

A run is named contestant/task/seed. Its metrics are `score`, `ledger/<currency>`, `meter/<name>` and the learning curve
as `train_loss` with tokens for steps. Where it goes is the library's own setting: MLFLOW_TRACKING_URI, TRACKIO_DIR.
"""

import contextlib
import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from paceline.core.errors import PacelineError
from paceline.report.schema import checked

CURVE = "train_loss"
BATCH = 1000
"""Metrics that an MLflow server takes at once."""


def log_to_mlflow(result: dict[str, Any], experiment: str = "paceline", page: Path | None = None) -> str:
    """Log a race to the MLflow tracking store in force, and return its parent run's id.

    Args:
        experiment: made if it is not there.
        page: the report, which becomes an artifact of the parent run if the file exists.

    Raises:
        PacelineError: MLflow is not installed or refuses, or the result is malformed.
    """
    clean = checked(result)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it reports its use to its makers unless told not to
    mlflow = _library("mlflow", "MLflow")
    entities = importlib.import_module("mlflow.entities")
    try:
        client = mlflow.MlflowClient()
        known = client.get_experiment_by_name(experiment)
        place = known.experiment_id if known else client.create_experiment(experiment)
        tags = {"mlflow.note.content": clean["answer"], "created": clean["created"]}
        parent: str = client.create_run(place, run_name=clean["title"], tags=tags).info.run_id
        for cell in clean["cells"]:
            tags = {"mlflow.parentRunId": parent, "status": cell["status"], "reason": cell["reason"] or ""}
            run = client.create_run(place, run_name=_name(cell), tags=tags).info
            params = [entities.Param(key, str(value)) for key, value in _params(cell).items()]
            points = [(CURVE, loss, int(tokens)) for tokens, loss in cell["curve"]]
            last = points[-1][2] if points else 0
            points += [(key, value, last) for key, value in _metrics(cell).items()]
            metrics = [entities.Metric(key, value, run.start_time, step) for key, value, step in points]
            client.log_batch(run.run_id, params=params)
            for start in range(0, len(metrics), BATCH):
                client.log_batch(run.run_id, metrics=metrics[start : start + BATCH])
            client.set_terminated(run.run_id, "FINISHED" if cell["status"] == "done" else "FAILED")
        if page is not None and page.is_file():
            client.log_artifact(parent, str(page))
        client.set_terminated(parent)
    except mlflow.exceptions.MlflowException as error:
        raise _refusal("MLflow", error) from error
    return parent


def log_to_trackio(result: dict[str, Any], project: str = "paceline") -> str:
    """Log a race to a trackio project and return the name of the group that its runs are in.

    Raises:
        PacelineError: trackio is not installed or refuses, or the result is malformed.
    """
    clean = checked(result)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # of huggingface_hub, which trackio stands on
    trackio = _library("trackio", "trackio")
    group = f"{clean['title']} {clean['created']}".strip()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what it prints is not what was asked for
            for cell in clean["cells"]:
                facts = {"status": cell["status"], "reason": cell["reason"] or ""}
                # this machine's load while logging says nothing of the race, and a dashboard is not asked for
                off = {"auto_log_gpu": False, "auto_log_cpu": False, "embed": False}
                trackio.init(project=project, name=_name(cell), group=group, config=_params(cell) | facts, **off)
                for tokens, loss in cell["curve"]:
                    trackio.log({CURVE: loss}, step=int(tokens))
                trackio.log(_metrics(cell), step=int(cell["curve"][-1][0]) if cell["curve"] else 0)
                trackio.finish()
    except (ValueError, RuntimeError) as error:
        raise _refusal("trackio", error) from error
    return group


def _library(name: str, title: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise PacelineError(f"--log {name} needs {title}: pip install 'paceline[{name}]'.") from error


def _refusal(title: str, error: Exception) -> PacelineError:
    said = " ".join(str(error).split())[:300].rstrip(".")
    return PacelineError(f"{title} refused the result ({said}): check its settings and --project.")


def _name(cell: dict[str, Any]) -> str:
    return f"{cell['contestant']}/{cell['task']}/{cell['seed']}"


def _params(cell: dict[str, Any]) -> dict[str, Any]:
    return {key: cell[key] for key in ("contestant", "task", "seed", "lr") if cell[key] is not None}


def _metrics(cell: dict[str, Any]) -> dict[str, float]:
    """What was measured once, by names that both libraries take."""
    found = {"score": cell["score"]}
    for prefix, values in (("ledger", cell["ledger"]), ("meter", cell["meters"])):
        found |= {f"{prefix}/{re.sub(r'[^a-zA-Z0-9_.-]+', '_', name)}": value for name, value in values.items()}
    return {key: float(value) for key, value in found.items() if value is not None}
