"""MLflow and trackio get every cell of a race, and nothing leaves this machine."""

import json
import os
import socket
import sqlite3
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pages import race

from paceline.core.errors import PacelineError
from paceline.report import write
from paceline.report.loggers import CURVE, log_to_mlflow, log_to_trackio

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, about SQLAlchemy
SILENT = ("MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")


def result() -> dict[str, Any]:
    """With a meter whose name no library takes as it is."""
    found = race()
    found["cells"][1]["meters"] = {"share of tokens, in %": 25}
    return found


@pytest.fixture(scope="module")
def calls() -> Iterator[list[Any]]:
    """Every address that anything here tries to reach; each try fails."""
    tried: list[Any] = []

    def refuse(_: object, address: object) -> None:
        tried.append(address)
        raise OSError("no network in tests")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        for name in SILENT:
            patch.setenv(name, "")  # so that what the logger sets is forgotten
            patch.delenv(name)
        yield tried


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, calls: list[Any]) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """MLflow's client on a local store in which a race was logged, the parent run's id, and the race."""
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # artifacts go to ./mlruns
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'runs.db'}")
        given = result()
        parent = log_to_mlflow(given, "ships", write(given, folder / "report.html"))
        yield mlflow.MlflowClient(), parent, given


def children(client: Any, parent: str) -> dict[str, Any]:
    place = client.get_experiment_by_name("ships").experiment_id
    found = client.search_runs([place], f"tags.`mlflow.parentRunId` = '{parent}'")
    return {run.info.run_name: run for run in found}


def test_mlflow_has_one_run_for_each_cell_with_its_numbers(store: tuple[Any, str, dict[str, Any]]) -> None:
    client, parent, given = store
    runs = children(client, parent)
    assert len(runs) == len(given["cells"]) == 6
    for cell in given["cells"]:
        run = runs[f"{cell['contestant']}/text/{cell['seed']}"]
        assert run.data.params == {key: str(cell[key]) for key in ("contestant", "task", "seed", "lr")}
        expected = {f"ledger/{key}": value for key, value in cell["ledger"].items()}
        expected |= {"score": cell["score"]} if cell["score"] is not None else {}
        expected |= {"meter/share_of_tokens_in_" if "%" in k else f"meter/{k}": v for k, v in cell["meters"].items()}
        assert {key: value for key, value in run.data.metrics.items() if key != CURVE} == expected
        assert run.data.tags["status"] == cell["status"] and run.data.tags["reason"] == (cell["reason"] or "")
        assert run.info.status == ("FINISHED" if cell["status"] == "done" else "FAILED")


def test_mlflow_has_the_learning_curve_by_tokens(store: tuple[Any, str, dict[str, Any]]) -> None:
    client, parent, given = store
    runs = children(client, parent)
    for cell in given["cells"]:
        history = client.get_metric_history(runs[f"{cell['contestant']}/text/{cell['seed']}"].info.run_id, CURVE)
        assert sorted([point.step, point.value] for point in history) == cell["curve"]


def test_mlflows_parent_run_has_the_answer_and_the_page(store: tuple[Any, str, dict[str, Any]], tmp_path: Path) -> None:
    client, parent, given = store
    run = client.get_run(parent)
    assert (run.info.run_name, run.info.status) == (given["title"], "FINISHED")
    assert run.data.tags["mlflow.note.content"] == given["answer"] and run.data.tags["created"] == given["created"]
    page = Path(client.download_artifacts(parent, "report.html", str(tmp_path)))
    assert page.read_bytes() == write(given, tmp_path / "same.html").read_bytes()


def test_mlflow_was_told_to_be_silent_and_called_nobody(store: tuple[Any, str, dict[str, Any]], calls: list) -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true" and is_telemetry_disabled()
    assert calls == []


def test_what_mlflow_refuses_is_one_sentence(store: tuple[Any, str, dict[str, Any]]) -> None:
    with pytest.raises(PacelineError, match=r"^MLflow refused the result \(.*\): check its settings and --project\.$"):
        log_to_mlflow(race(), "")


class Recorder(types.ModuleType):
    """Stands for trackio where it is not installed, and for what no database shows: the arguments."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.said: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.said.append((name, args, kwargs))


def test_trackio_is_called_once_a_cell_with_its_numbers(monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> None:
    trackio, given = Recorder(), result()
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    group = log_to_trackio(given, "ships")
    assert group == "A small race 2025-01-02T03:04:05" and os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    starts = [kwargs for name, _, kwargs in trackio.said if name == "init"]
    assert [start["name"] for start in starts] == [f"{c['contestant']}/text/{c['seed']}" for c in given["cells"]]
    assert {(start["project"], start["group"]) for start in starts} == {("ships", group)}
    assert not any(start[key] for start in starts for key in ("embed", "auto_log_cpu", "auto_log_gpu"))
    assert starts[-1]["config"]["reason"] == "loss was nan at step 41" and starts[0]["config"]["lr"] == 0.01
    logged = [(args[0], kwargs["step"]) for name, args, kwargs in trackio.said if name == "log"][:11]
    assert [[step, metrics[CURVE]] for metrics, step in logged[:-1]] == given["cells"][0]["curve"]
    assert logged[-1][1] == 1000 and logged[-1][0]["score"] == 2.01 and logged[-1][0]["ledger/tokens"] == 1000
    assert sum(name == "finish" for name, *_ in trackio.said) == 6


def test_trackio_keeps_every_number_in_its_own_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: list[Any]
) -> None:
    """With the real library; it is not among those that the tests install (pyproject.toml says why)."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read when it is imported
    pytest.importorskip("trackio")
    given = result()
    log_to_trackio(given, "ships")
    with sqlite3.connect(tmp_path / "ships.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
        configs = dict(database.execute("select run_name, config from configs").fetchall())
    for cell in given["cells"]:
        name = f"{cell['contestant']}/text/{cell['seed']}"
        mine = [(step, json.loads(metrics)) for run, step, metrics in rows if run == name]
        assert [[step, metrics[CURVE]] for step, metrics in mine if CURVE in metrics] == cell["curve"]
        (last,) = (metrics for _, metrics in mine if CURVE not in metrics)
        assert last.get("score") == cell["score"]
        assert {f"ledger/{key}": value for key, value in cell["ledger"].items()}.items() <= last.items()
        config = json.loads(configs[name])
        assert (config["contestant"], config["seed"], config["status"]) == tuple(
            cell[key] for key in ("contestant", "seed", "status")
        )
    assert calls == []


@pytest.mark.parametrize(
    ("log", "name", "sentence"),
    [
        (log_to_mlflow, "mlflow", "--log mlflow needs MLflow: pip install 'paceline[mlflow]'."),
        (log_to_trackio, "trackio", "--log trackio needs trackio: pip install 'paceline[trackio]'."),
    ],
)
def test_a_library_that_is_missing_is_named(
    log: Any, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch, calls: list[Any]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PacelineError) as caught:
        log(race())
    assert str(caught.value) == sentence
