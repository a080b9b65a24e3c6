"""Several processes on this machine, linked by gloo: for tests, measurements and first tries.

One fresh Python loads torch and the work's module, and is then forked: torch is imported once, however many there are.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from paceline.core.errors import PacelineError

Facts = dict[str, Any]
"""What JSON can say."""
Work = Callable[..., Facts]
"""A module's function of a `Link` and of JSON arguments by name."""
FIRST = "first.json"
"""Who failed first, and why: the others may fail for that reason alone, having lost whom they talked to."""


def run_ranks(work: Work, size: int, patience: float = 60.0, limit: float = 600.0, **arguments: Any) -> list[Facts]:
    """What each of `size` processes finds, by rank.

    Args:
        work: what they do, each with one thread.
        size: how many.
        patience: seconds that one waits for another.
        limit: seconds that all may take.
        arguments: for `work`.

    Raises:
        PacelineError: one said so, ended without an answer, or took too long.
    """
    with tempfile.TemporaryDirectory() as place:
        job = {
            "module": work.__module__, "work": work.__qualname__, "size": size, "patience": patience,
            "arguments": arguments,
        }  # fmt: skip
        (Path(place) / "job.json").write_text(json.dumps(job), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", __name__, place]
        said = _run(command, environment, size, limit)
        found = [_answer(Path(place) / f"{rank}.json") for rank in range(size)]
        failed = _answer(Path(place) / FIRST)
    for answer in found:
        if answer is not None and "error" in answer:
            raise PacelineError(answer["error"])
    if None in found:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        rank, why = (found.index(None), last) if failed is None else (failed["rank"], failed["why"])
        raise PacelineError(f"Process {rank} of {size} ended without an answer: {why}")
    return [answer["found"] for answer in found if answer is not None]


def _run(command: list[str], environment: dict[str, str], size: int, limit: float) -> str:
    """What they said while they ran."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as leader:
        try:
            return leader.communicate(timeout=limit)[1]
        except subprocess.TimeoutExpired as error:
            raise PacelineError(
                f"{size} processes took longer than {limit:g} s: give them more, or less work."
            ) from error
        finally:
            leader.terminate()  # it ends the others; nothing where it has ended


def _answer(path: Path) -> Facts | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _lead(place: Path) -> None:
    """Load, fork, wait."""
    job = json.loads((place / "job.json").read_text(encoding="utf-8"))
    import torch

    torch.set_num_threads(1)
    work = importlib.import_module(job["module"])
    for name in job["work"].split("."):
        work = getattr(work, name)
    children: list[int] = []

    def end(*_: object) -> None:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    for rank in range(job["size"]):
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _follow(place, rank, job, work)  # type: ignore[arg-type]
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def _follow(place: Path, rank: int, job: Facts, work: Work) -> None:
    """The life of one process; it does not return."""
    import traceback

    from torch import distributed

    from paceline.parallel._link import Link

    status = 0
    answer: Facts | None = None
    try:
        limit = timedelta(seconds=job["patience"])
        distributed.init_process_group(
            "gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=job["size"], timeout=limit
        )
        answer = {"found": work(Link(patience=job["patience"]), **job["arguments"])}
        with suppress(RuntimeError):  # who leaves first may cut off what others have not yet read
            distributed.barrier()
    except PacelineError as error:
        answer = {"error": str(error)}
    except BaseException as error:
        traceback.print_exc()
        status = 1
        why = traceback.format_exception_only(error)[-1].strip()
        with suppress(FileExistsError), (place / FIRST).open("x", encoding="utf-8") as file:
            json.dump({"rank": rank, "why": why}, file)
    if answer is not None:
        (place / f"{rank}.json").write_text(json.dumps(answer), encoding="utf-8")
    sys.stderr.flush()
    os._exit(status)  # without the farewell of gloo, which waits for those that are gone


if __name__ == "__main__":
    _lead(Path(sys.argv[1]))
