"""The same cells on a Ray cluster: `--on ray`, with the extra `paceline[ray]`.

Ray's workers need no shared disk for what a cell makes: record and model come back to the race by value, and only the
race writes its folder. A task that reads files (text) does need its corpus, which lies in the race's folder, under the
same path on every machine. A worker that dies takes its cell's progress with it, and the cell is run again elsewhere.
"""

import math
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from paceline.core.errors import PacelineError
from paceline.core.files import write_atomic
from paceline.core.lock import Lock
from paceline.lm.train import reset_peak_memory
from paceline.race.cell import Cell, _last_words, _plain, _write, read_record, write_failure
from paceline.race.pool import Limits, Watch

RETRIES = 3
"""Times that a cell is begun anew when its worker dies."""


@dataclass(frozen=True)
class Returned:
    """What comes back from a worker: facts for the record or a reason, and the model's files."""

    facts: dict[str, Any] | None
    reason: str | None
    files: dict[str, bytes]
    seconds: float


def run_on_ray(cells: Sequence[Cell], limits: Limits, watch: Watch, lock: Lock | None = None) -> Iterator[Cell]:
    """As `race.pool.run_cells`, on the cluster that RAY_ADDRESS names, or else on a Ray of this machine's own.

    Args:
        cells: those without a record are run.
        limits: threads of a cell are the CPUs that it asks Ray for, and its time is limited here; memory is Ray's own
            concern, and how many run at a time follows from the cluster.
        watch: not called, for a cell's progress stays with its worker.
        lock: the race's, which stays here.

    Raises:
        PacelineError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _ray()
    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise PacelineError(f"Ray cannot be reached ({error}): start it, or leave --on out.") from error
    running: dict[Any, Cell] = {}
    try:
        work = ray.remote(num_cpus=limits.threads, max_retries=RETRIES)(run_away)
        waiting = [cell for cell in cells if read_record(cell) is None]
        running = {work.remote(cell, limits): cell for cell in waiting}
        while running:
            done, _ = ray.wait(list(running), timeout=0.5)
            for reference in done:
                cell = running.pop(reference)
                _settle(ray, cell, reference)
                yield cell
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if mine:
            ray.shutdown()


def run_away(cell: Cell, limits: Limits) -> Returned:
    """On a worker: run the cell in a folder of the worker's own, and return everything."""
    torch.set_num_threads(limits.threads)
    reset_peak_memory()  # workers are reused
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place, _time_limit(limits.seconds):
        model = None if cell.job.model_folder is None else Path(place, "model")
        job = replace(cell.job, folder=Path(place, "run"), model_folder=model)
        try:
            outcome = cell.contestant.run(job, lambda *_: None)
            if not outcome.items or not all(map(math.isfinite, outcome.items)):
                raise PacelineError("The scores are not finite.")
        except Exception as error:
            return Returned(None, _last_words(error), {}, time.monotonic() - began)
        files = {} if model is None or not model.is_dir() else {p.name: p.read_bytes() for p in model.iterdir()}
        facts = {"status": "done", "reason": None, **_plain(outcome)}
        return Returned(facts, None, files, time.monotonic() - began)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise inside the block when it takes too long: Ray knows no time limit of a task."""

    def stop(*_: object) -> None:
        raise PacelineError(f"It was stopped after {seconds:.0f} seconds, the limit of a cell.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _settle(ray: Any, cell: Cell, reference: Any) -> None:
    """Write what came back: the model before the record, so that a record never stands for a missing model."""
    try:
        returned: Returned = ray.get(reference)
    except ray.exceptions.RayError as error:
        write_failure(cell, f"Its worker died {RETRIES + 1} times ({type(error).__name__}).", 0.0)
        return
    if returned.facts is None:
        write_failure(cell, returned.reason or "It gave no reason.", returned.seconds)
        return
    if cell.job.model_folder is not None:
        for name, data in returned.files.items():
            cell.job.model_folder.mkdir(parents=True, exist_ok=True)
            write_atomic(cell.job.model_folder / name, data)
    _write(cell, returned.facts)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise PacelineError("--on ray needs Ray: pip install 'paceline[ray]'.") from error
    return ray
