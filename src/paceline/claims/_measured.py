"""Contestants that a claim measures by a function of its own, and models that they share."""

import fcntl
from collections.abc import Callable
from pathlib import Path

from paceline.core.errors import PacelineError
from paceline.data._contract import Task
from paceline.lm.checkpoint import load_model, save_model
from paceline.lm.config import Config
from paceline.lm.decoder import Decoder
from paceline.race.contestant import Contestant, Event, Job, Outcome, Report


class Measured(Contestant):
    """Whatever a function of the claim's module finds for a task and a seed. There are no settings, so no search.

    Args:
        name: for the tables.
        measure: runs one cell; all chance follows from `job.seed`. A module's function, for it crosses processes.
        how: its argument: what this contestant does, as text, such as `quest(tokens=256)`.
        tasks: the kind of task that it is measured on.
    """

    settings = (0.0,)

    def __init__(self, name: str, measure: Callable[[Job, str, Report], Outcome], how: str, tasks: type[Task]) -> None:
        self.name, self.measure, self.how, self.tasks = name, measure, how, tasks

    def identity(self) -> list[object]:
        """See `Contestant.identity`."""
        return [f"{self.measure.__module__}.{self.measure.__qualname__}", self.how]

    def check(self, event: Event) -> None:
        """See `Contestant.check`."""
        if not isinstance(event.task, self.tasks):
            raise PacelineError(f"{self.name} is measured on {self.tasks.__name__}, not on {event.task.name}.")

    def run(self, job: Job, report: Report) -> Outcome:
        """See `Contestant.run`."""
        return self.measure(job, self.how, report)


def trained_once(folder: Path, make: Callable[[], tuple[Decoder, Config]]) -> Decoder:
    """The model that `make` trains, from `folder` where an earlier cell, or one beside this, has trained it.

    Args:
        folder: its own, named after all that decides: what is trained, on what, how long, and the seed.
        make: trains it; the same whoever calls it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed: another that wants the model waits for it
        if not folder.exists():  # it appears whole
            save_model(*make(), folder)
    return load_model(folder)[0]
