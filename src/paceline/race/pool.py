"""Cells in processes of a forkserver that has torch loaded, with limits of time and memory."""

import multiprocessing
import multiprocessing.process
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait

import psutil

from paceline.core.errors import PacelineError
from paceline.core.lock import Lock
from paceline.race.cell import Cell, read_record, run_in_child, write_failure

OPENING = (
    "paceline.lm.open", "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama", "numba", "peft",
)  # fmt: skip
"""What opening a pretrained model imports, for four seconds. What is not installed is passed over."""
Watch = Callable[[Cell, int, int, float], None]
"""Called with (cell, steps done, steps in all, loss)."""


@dataclass(frozen=True)
class Limits:
    """What the cells of a race may take."""

    workers: int
    """Cells at a time."""
    threads: int = 1
    """Threads of a cell."""
    seconds: float = 24 * 3600.0
    """Wall-clock time of a cell."""
    memory: int = 0
    """Resident bytes of a cell; 0: an equal share of 90 % of the machine."""


def default_limits() -> Limits:
    """As many cells as cores, one thread each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Limits(workers=cores, memory=int(0.9 * psutil.virtual_memory().total / cores))


@dataclass
class _Running:
    cell: Cell
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    began: float
    last_words: str | None = None
    """Why it gives up; empty once its process has loaded the contestant."""
    disk: OSError | None = None
    """Why nothing more can be written."""


def run_cells(cells: Sequence[Cell], limits: Limits, watch: Watch, lock: Lock | None = None) -> Iterator[Cell]:
    """Run the cells that have no record yet; yield each when its record is written.

    Whatever ends the loop (Ctrl-C too) ends the processes; finished cells keep their records. The cells hold the
    race's `lock` too.

    Raises:
        PacelineError: a contestant that does not pickle, a main module that a cell's process cannot import, or a disk
            that takes no more.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise PacelineError(
            "Put the call of race() under `if __name__ == '__main__':`, because its cells import your file."
        )
    waiting = [cell for cell in cells if read_record(cell) is None][::-1]
    if not waiting:  # the server that is started for the first cells serves all that come later in this process
        return
    context = multiprocessing.get_context("forkserver")
    # Once here, not in every cell: torch._dynamo comes with the first meta tensor and costs a second, and a cell
    # imports the main file anew (on Python 3.11, whatever is asked for), which in a script means most of the rest.
    opening = OPENING if on_given_models(waiting) else ()
    context.set_forkserver_preload(["__main__", "paceline.race.run", "torch._dynamo", *opening])
    resource_tracker.ensure_running()  # the server would start it, which lets interrupts through again
    with _interrupts_blocked():
        forkserver.ensure_running()
    running: list[_Running] = []
    with _interrupts_noted() as check:
        try:
            while waiting or running:
                check()
                while waiting and len(running) < limits.workers:
                    running.append(_start(context, waiting.pop(), limits, lock))
                open_pipes = [r.pipe for r in running if not r.pipe.closed]
                wait([*(r.process.sentinel for r in running), *open_pipes], timeout=0.5)
                for item in list(running):
                    _listen(item, watch)
                    reason = _beyond(item, limits) if item.process.is_alive() else None
                    if reason is not None:
                        _stop(item)
                    if item.process.is_alive():
                        continue
                    _stop(item)
                    _listen(item, watch)
                    running.remove(item)
                    _settle(item, reason)
                    yield item.cell
        finally:
            for item in running:
                _stop(item)


def on_given_models(cells: Sequence[Cell]) -> bool:
    """Whether some of them open a pretrained model, which tasks on one name."""
    return any(getattr(cell.job.event.task, "model", None) for cell in cells)


@contextmanager
def _interrupts_noted() -> Iterator[Callable[[], None]]:
    """A Ctrl-C is noted, and raised by the function that is given: raised just anywhere, it may end a half-started
    process's tie to us, or be lost in a destructor, where Python ignores exceptions."""
    noted = False

    def note(*_: object) -> None:
        nonlocal noted
        noted = True

    def check() -> None:
        if noted:
            raise KeyboardInterrupt

    mine = threading.current_thread() is threading.main_thread()  # others get no signals
    if not mine or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield check
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
    check()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """What is started here, and its children, do not hear a Ctrl-C, which a terminal sends to all: we do, for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(
    context: multiprocessing.context.ForkServerContext, cell: Cell, limits: Limits, lock: Lock | None
) -> _Running:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run_in_child, args=(cell, theirs, limits.threads, lock), daemon=True)
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        name = cell.contestant.name
        raise PacelineError(
            f"{name} cannot cross into another process ({error}): define all of it in a module."
        ) from error
    theirs.close()
    return _Running(cell, process, ours, time.monotonic())


def _listen(item: _Running, watch: Watch) -> None:
    """Take what the cell has said: progress, in a string why it gives up, or the disk's refusal."""
    while not item.pipe.closed:
        try:
            if not item.pipe.poll():
                return
            message = item.pipe.recv()
        except (EOFError, OSError):
            item.pipe.close()
            return
        if isinstance(message, str):
            item.last_words = message
        elif isinstance(message, OSError):
            item.disk = message
        else:
            watch(item.cell, *message)


def _beyond(item: _Running, limits: Limits) -> str | None:
    """Why the cell must be stopped, if it must."""
    if time.monotonic() - item.began > limits.seconds:
        return f"It was stopped after {limits.seconds:.0f} seconds, the limit of a cell."
    with suppress(psutil.Error):
        used = psutil.Process(item.process.pid).memory_info().rss
        allowed = limits.memory or int(0.9 * psutil.virtual_memory().total / limits.workers)
        if used > allowed:
            return f"It was stopped at {used / 2**30:.1f} GiB, above the limit of {allowed / 2**30:.1f} GiB for a cell."
    return None


def _stop(item: _Running) -> None:
    """End the process, if it lives, and those that it started, which may outlive it."""
    group = item.process.pid
    assert group is not None  # it was started
    item.process.kill()
    item.process.join()
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says the latter
        os.killpg(group, signal.SIGKILL)


def _settle(item: _Running, reason: str | None) -> None:
    """Make sure that a cell that is over has a record."""
    if read_record(item.cell) is not None:
        return
    if item.disk is not None:  # nor is this, and once there is room the cell can run
        raise PacelineError(
            f"The disk takes no more of {item.cell.label} ({item.disk.strerror}): make room, and the same call goes on "
            "from the finished cells."
        )
    code = item.process.exitcode or 0
    if reason is None and item.last_words is None and code == 1:  # no fault of the contestant, so no record
        raise PacelineError(
            f"A new process cannot load {item.cell.contestant.name}: define it in a module, and call race() from "
            "a file, under `if __name__ == '__main__':`."
        )
    reason = reason or item.last_words
    if not reason and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
        reason = f"Its process was killed by {name}" + (" (out of memory?)." if name == "SIGKILL" else ".")
    seconds = time.monotonic() - item.began
    write_failure(item.cell, reason or f"Its process ended with code {code} and no result.", seconds)
