"""Facts about cells on Ray: the records of this machine's own processes, whatever happens to a worker."""

import os
import signal
import sys
import threading
import time

import psutil
import pytest
from _toys import Divides, Refuses, Sleeps, Toy, event, grid

from paceline.core.errors import PacelineError
from paceline.lm.checkpoint import load_model
from paceline.race.cell import read_record
from paceline.race.contestant import Model
from paceline.race.on_ray import run_on_ray
from paceline.race.pool import Limits, run_cells
from paceline.race.run import race

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
LIMITS = Limits(1)


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )  # fmt: skip
    yield ray
    ray.shutdown()


def run(runner, race):
    cells = list(race.race())
    assert {c.label for c in runner(cells, LIMITS, lambda *_: None)} == {c.label for c in cells}
    records = [read_record(cell) for cell in cells]
    for record in records:
        for bill in ("ledger", "evaluation"):
            record[bill] = {k: v for k, v in record.get(bill, {}).items() if k not in ("seconds", "peak_bytes")}
    return records


def test_the_same_race_on_ray_and_here(cluster, tmp_path):
    contestants = [Model("ema", rates=(1e-3,)), Model("seqboat", rates=(1e-3,)), Refuses("refuses"), Divides("divides")]
    here, there = (grid(tmp_path / place, *contestants, seeds=(0, 1)) for place in ("here", "there"))
    assert run(run_cells, here) == run(run_on_ray, there)
    models = [sorted(p.relative_to(tmp_path / place) for p in (tmp_path / place / "models").rglob("*.safetensors"))
              for place in ("here", "there")]  # fmt: skip
    assert models[0] == models[1] != []
    for name in models[0]:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_finished_cells_are_not_run_again(cluster, tmp_path):
    race = grid(tmp_path, Toy(), seeds=(0, 1, 2))
    assert len(list(run_on_ray(list(race.race())[:2], LIMITS, lambda *_: None))) == 2
    assert [c.job.seed for c in run_on_ray(list(race.race()), LIMITS, lambda *_: None)] == [2]


def test_a_killed_worker_loses_nothing(cluster, tmp_path):
    """The worker dies in the middle of a cell; the cell is run again and counted once."""
    killed = []

    def kill():
        until = time.monotonic() + 60
        while not killed and time.monotonic() < until:
            for process in psutil.process_iter(["cmdline"]):
                if (process.info["cmdline"] or [""])[0].startswith("ray::run_away"):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
            time.sleep(0.01)

    contestants = [Model("ema", rates=(1e-3,))]
    here, there = (grid(tmp_path / place, *contestants, seeds=(0, 1, 2), tokens=48 * 100) for place in ("a", "b"))
    expected = run(run_cells, here)
    thread = threading.Thread(target=kill)
    thread.start()
    found = run(run_on_ray, there)
    thread.join()
    assert killed and found == expected


def test_a_cell_beyond_its_time_is_a_recorded_failure(cluster, tmp_path):
    race = grid(tmp_path, Sleeps("sleeps"))
    list(run_on_ray(list(race.race()), Limits(1, seconds=1.0), lambda *_: None))
    assert [read_record(c)["reason"] for c in race.race()] == ["It was stopped after 1 seconds, the limit of a cell."]


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PacelineError, match=r"pip install 'paceline\[ray\]'"):
        list(run_on_ray(list(grid(tmp_path, Toy()).race()), LIMITS, lambda *_: None))


def test_a_whole_race_on_ray_ends_as_it_does_here(cluster, tmp_path):
    results = []
    for on in ("here", "ray"):
        contestants = [Model("ema", rates=(1e-3, 1e-2)), Model("lightning", rates=(1e-3,))]
        results.append(race(contestants, [event()], out=tmp_path / on, seeds=2, limits=LIMITS, on=on))
    here, there = results
    for key in ("answer", "standings", "comparisons", "contestants"):
        assert here[key] == there[key]
    assert [c["lr"] for c in here["cells"]] == [c["lr"] for c in there["cells"]]
    assert load_model(tmp_path / "ray" / "winner") is not None


def test_a_place_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(PacelineError, match="not on 'moon'"):
        race(["ema"], [event()], out=tmp_path, on="moon")
