"""A folder for one process at a time. POSIX only (flock), as are the processes of a race."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import psutil

from paceline.core.errors import PacelineError

NAME = ".lock"
PATIENCE = 3.0
"""Seconds to wait for a folder that a living process has."""
REMNANTS = 60.0
"""The same where only children of a killed process have it: they leave, at the latest once torch is loaded."""


class Lock:
    """A folder that is held. A child process that is given it holds it too, until it ends, however it ends."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __reduce__(self) -> tuple[Callable[..., "Lock"], tuple[object]]:
        return _arrive, (reduction.DupFd(self.handle),)


def _arrive(duplicate: Any) -> Lock:
    return Lock(duplicate.detach())


@contextmanager
def hold(folder: Path, what: str) -> Iterator[Lock]:
    """Have `folder` to oneself inside the block; the system frees it when all who hold it are dead.

    Args:
        folder: made if it is not there.
        what: who else may be in it, for the refusal: a "race".

    Raises:
        PacelineError: it is in use, or cannot be written.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _take(path, what)
    except OSError as error:
        raise PacelineError(f"Cannot write to {folder} ({error.strerror}): choose another --out.") from error
    try:
        yield Lock(handle)
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held, or it might be another's by now
        os.close(handle)


def _take(path: Path, what: str) -> int:
    """The handle of the locked file, in which the number of this process is."""
    began = time.monotonic()
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(handle, 20, 0).decode(errors="replace") or "unknown"
            os.close(handle)
            if time.monotonic() - began > (PATIENCE if _lives(who) else REMNANTS):
                raise PacelineError(
                    f"{path.parent} is in use by another {what} (process {who}, or one that it started): wait until "
                    "it ends, or choose another --out."
                ) from None
            time.sleep(0.05)
            continue
        except OSError:  # a file system that knows no locks: as good as it can be
            return handle
        if not _is(handle, path):  # whoever had it removed it before leaving, and a third may have made a new one
            os.close(handle)
            continue
        with suppress(OSError):  # the number is a courtesy, and a full disk will be told of where it matters
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        return handle


def _lives(who: str) -> bool:
    """Whether there is a process of this number; nobody may have written it yet."""
    return not who.isdecimal() or psutil.pid_exists(int(who))


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
