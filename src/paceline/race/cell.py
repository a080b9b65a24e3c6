"""One cell in a process of its own, and the record that it leaves. A failed cell is a result too."""

import errno
import json
import math
import multiprocessing
import os
import shutil
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from paceline.core.errors import PacelineError
from paceline.core.files import seal, sealed, write_json
from paceline.core.lock import Lock
from paceline.race.contestant import Contestant, Job, Outcome

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""Errors of the machine: no contestant is to blame, so there is no record of them."""


@dataclass(frozen=True)
class Cell:
    """A place in the grid: what to run, and where its record goes."""

    phase: str
    """`tuning`, `race` or `confirmation`."""
    contestant: Contestant
    job: Job
    record: Path

    @property
    def label(self) -> str:
        """For progress: contestant, task and seed."""
        return f"{self.contestant.name} on {self.job.event.task.name}, seed {self.job.seed}"


def read_record(cell: Cell) -> dict[str, Any] | None:
    """The record of a cell that is done or failed for good, or None where it must still run.

    A record that is not whole, or not as it was written, counts as none: the cell runs again.
    """
    try:
        record = json.loads(cell.record.read_text(encoding="utf-8"))
        whole = sealed(record) and record.pop("sha256") and record["status"] in ("done", "failed")
        return record if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_failure(cell: Cell, reason: str, seconds: float) -> None:
    """Record that the cell failed, what it cost as far as is known, and why."""
    ledger = {"tokens": 0, "flops": 0.0, "seconds": seconds}
    _write(cell, {"status": "failed", "reason": reason, "score": None, "ledger": ledger})
    shutil.rmtree(cell.job.folder, ignore_errors=True)


def run_in_child(cell: Cell, pipe: Connection, threads: int, lock: Lock | None = None) -> None:
    """The whole life of a cell's process: run, write the record, leave.

    It has the race's `lock` only to have it: a killed race's folder is not free while a cell may still write there.
    """
    _tie_to_parent()
    torch.set_num_threads(threads)
    os.dup2(2, 1)  # what a contestant prints must not end up in the parent's JSON
    pipe.send("")  # the contestant was loaded

    def report(done: int, of: int, loss: float) -> None:
        try:
            pipe.send((done, of, loss))
        except OSError:  # the parent is gone: nobody will want this cell's record
            os._exit(1)

    try:
        outcome = cell.contestant.run(cell.job, report)
        if not outcome.items or not all(map(math.isfinite, outcome.items)):
            raise PacelineError("The scores are not finite.")
        _write(cell, {"status": "done", "reason": None, **_plain(outcome)})
        shutil.rmtree(cell.job.folder, ignore_errors=True)
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        pipe.send(_disk_trouble(error) or _last_words(error))


def _tie_to_parent() -> None:
    """End when the race does, whatever ends it, and lead a group of processes: what the cell starts ends with it."""
    parent = multiprocessing.parent_process()
    if parent is None:  # called in the race's own process
        return
    os.setpgid(0, 0)

    def follow() -> None:
        parent.join()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()


def _disk_trouble(error: Exception) -> OSError | None:
    """The disk's refusal behind the error, as one that can cross into the other process."""
    for cause in (error, error.__cause__):
        if isinstance(cause, OSError) and cause.errno in DISK:
            return OSError(cause.errno, cause.strerror)
    return None


def _last_words(error: Exception) -> str:
    if isinstance(error, PacelineError):
        return str(error)
    if isinstance(error, MemoryError):
        return "It ran out of memory."
    traceback.print_exception(error)
    return f"It crashed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "score": sum(outcome.items) / len(outcome.items),
        "items": outcome.items,
        "curve": outcome.curve,
        "ledger": outcome.ledger.to_dict(),
        "evaluation": outcome.evaluation.to_dict(),
        "meters": outcome.meters,
        "trace": outcome.trace,
    }


def _write(cell: Cell, facts: dict[str, Any]) -> None:
    head = {
        "task": cell.job.event.task.name,
        "contestant": cell.contestant.name,
        "seed": cell.job.seed,
        "lr": cell.job.setting,
    }
    write_json(cell.record, seal({**head, **facts}))
