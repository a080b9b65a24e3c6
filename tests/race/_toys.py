"""Contestants of every temper, in a module of their own so that new processes can import them."""

import errno
import math
import os
import signal
import sys
import time
import uuid
from pathlib import Path

from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.data.recall import Recall
from paceline.race.contestant import Contestant, Event, Job, Outcome, Report
from paceline.race.grid import Grid


def event(**changes) -> Event:
    task = Recall(pairs=2, keys=3, values=3, stretch=4, queries=4)
    task.items = 20
    return Event(**{"task": task, "tokens": 3 * 48, "parameters": 3000, "batch": 4, **changes})


def grid(folder: Path, *contestants: Contestant, seeds=(0,), **changes) -> Grid:
    return Grid(contestants, [event(**changes)], seeds, folder)


class Toy(Contestant):
    """Says that it ran, by a file of its own in the checkpoint folder's race; then misbehaves as its name tells."""

    settings = (0.1,)

    def __init__(self, name: str = "good", settings: tuple[float, ...] = (0.1,), marks: Path | None = None) -> None:
        self.name, self.settings, self.marks = name, settings, marks

    def run(self, job: Job, report: Report) -> Outcome:
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "checkpoint").touch()
        if self.marks is not None:
            (self.marks / f"{self.name}.{os.getpid()}.{uuid.uuid4().hex}").touch()
        return self.act(job, report)

    def act(self, job: Job, report: Report) -> Outcome:
        report(1, 2, 0.75)
        report(2, 2, 0.5)
        items = [0.5 + job.seed / 8, 1.0 - job.setting]
        return Outcome(items, [(48, 0.75), (96, 0.5)], Ledger(tokens=96), {"activated.0": 0.25})


class Refuses(Toy):
    def act(self, job, report):
        raise PacelineError("The sea is too rough: wait for calm.")


class Prints(Toy):
    def act(self, job, report):
        print("look at me", flush=True)
        return super().act(job, report)


class Divides(Toy):
    def act(self, job, report):
        return 1 / 0


class Rambles(Toy):
    def act(self, job, report):
        raise ValueError("line one\n  line two\n" + "and so on " * 1000)


class OutOfMemory(Toy):
    def act(self, job, report):
        raise MemoryError


class Exits(Toy):
    def act(self, job, report):
        os._exit(3)


class Quits(Toy):
    def act(self, job, report):
        sys.exit(0)


class Faults(Toy):
    def act(self, job, report):
        os.kill(os.getpid(), signal.SIGSEGV)


class Killed(Toy):
    def act(self, job, report):
        os.kill(os.getpid(), signal.SIGKILL)


class NotANumber(Toy):
    def act(self, job, report):
        return Outcome([0.5, math.nan], [], Ledger())


class NoItems(Toy):
    def act(self, job, report):
        return Outcome([], [], Ledger())


class CurveNotANumber(Toy):
    def act(self, job, report):
        return Outcome([0.5], [(1, math.inf)], Ledger())


class Sleeps(Toy):
    def act(self, job, report):
        report(1, 2, 0.5)
        time.sleep(60)


class Eats(Toy):
    """Ever more, up to 4 GiB, in small bites: whoever watches has seconds to see it."""

    def act(self, job, report):
        meal = []
        while len(meal) < 128:
            meal.append(b"x" * 2**25)
            time.sleep(0.03)


class Unloadable(Toy):
    """Leaves its process well, and cannot enter another."""

    def __setstate__(self, state):
        raise ImportError("not here")


class Slow(Toy):
    """Long enough to be killed in the middle."""

    def act(self, job, report):
        report(1, 2, 0.75)
        time.sleep(0.4)
        return super().act(job, report)


class Forks(Toy):
    """Leaves a child behind, which says who it is as its parent did."""

    def act(self, job, report):
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        (self.marks / f"child.{child}").touch()
        return super().act(job, report)


class Full(Toy):
    """Finds the disk full until there is the folder `marks`."""

    def run(self, job, report):
        if not self.marks.exists():
            error = OSError(errno.ENOSPC, "No space left on device")
            raise PacelineError("Cannot write the checkpoint: make room.") from error
        return self.act(job, report)
