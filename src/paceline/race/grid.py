"""The grid of a race: which cells there are, in which order, and what is already done."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline import __version__
from paceline.core.errors import PacelineError
from paceline.core.files import write_json
from paceline.race.cell import Cell, read_record
from paceline.race.contestant import Contestant, Event, Job

PILOT_SEED = 1_000_003
"""The search for settings runs on this seed, which no race uses, each setting on a whole cell's tokens: on a third of
them the search chose rates that were wrong by a factor of eight (LOG.md)."""


@dataclass(frozen=True)
class Grid:
    """Contestants x events x seeds in one folder."""

    contestants: Sequence[Contestant]
    events: Sequence[Event]
    seeds: Sequence[int]
    folder: Path

    def identity(self) -> dict[str, Any]:
        """What makes this race this one: a folder holds the cells of one identity only."""
        return {
            "paceline": __version__,
            "contestants": {c.name: c.identity() for c in self.contestants},
            "tasks": {e.task.name: e.task.describe() for e in self.events},
            "tokens": {e.task.name: e.tokens for e in self.events},
            "parameters": {e.task.name: e.parameters for e in self.events},
            "batch": {e.task.name: e.batch for e in self.events},
            "seeds": list(self.seeds),
        }

    def claim(self) -> None:
        """Take the folder for this race, or continue it there.

        Raises:
            PacelineError: the folder holds another race, or cannot be written.
        """
        path = self.folder / "race.json"
        mine = self.identity()
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            try:
                write_json(path, mine)
            except OSError as error:
                raise PacelineError(
                    f"Cannot write to {self.folder} ({error.strerror}): choose another --out."
                ) from error
            return
        except (OSError, ValueError) as error:
            raise PacelineError(f"{path} cannot be read: delete {self.folder}, or choose another --out.") from error
        if not isinstance(known, dict):
            raise PacelineError(f"{path} is not a race's: choose another --out, or delete {self.folder}.")
        if known != mine:
            differs = next((k for k in mine if known.get(k) != mine[k]), "something")
            raise PacelineError(
                f"{self.folder} holds another race ({differs} differ): choose another --out, or delete it."
            )

    def tuning(self) -> list[Cell]:
        """One cell for each setting, where there is a choice."""
        return [
            self._cell("tuning", contestant, event, PILOT_SEED, setting)
            for event in self.events
            for contestant in self.contestants
            if len(contestant.settings) > 1
            for setting in contestant.settings
        ]

    def race(self) -> Iterator[Cell]:
        """All seeds at the chosen settings, seed by seed, so that a race cut short is still paired."""
        for seed in self.seeds:
            for event in self.events:
                for contestant in self.contestants:
                    yield self._cell("race", contestant, event, seed, self.chosen(contestant, event))

    def fresh(self, contestants: Sequence[Contestant], event: Event, count: int) -> list[Cell]:
        """The same at `count` seeds that neither race nor search has used, seed by seed."""
        unused = (seed for seed in itertools.count(max(self.seeds) + 1) if seed != PILOT_SEED)
        return [
            self._cell("confirmation", contestant, event, seed, self.chosen(contestant, event))
            for seed in itertools.islice(unused, count)
            for contestant in contestants
        ]

    def chosen(self, contestant: Contestant, event: Event) -> float:
        """The setting with the best pilot score; the first where every pilot failed."""
        if len(contestant.settings) == 1:
            return contestant.settings[0]
        scored = []
        for setting in contestant.settings:
            record = read_record(self._cell("tuning", contestant, event, PILOT_SEED, setting))
            if record is not None and record["score"] is not None:
                sign = 1 if event.task.better == "higher" else -1
                scored.append((sign * record["score"], -setting))
        return -max(scored)[1] if scored else contestant.settings[0]

    def _cell(self, phase: str, contestant: Contestant, event: Event, seed: int, setting: float) -> Cell:
        place = f"{event.task.name}/{slug(contestant.name)}/{phase}-{seed}-{setting!r}"
        model = self.folder / "models" / place if phase == "race" else None
        job = Job(event, seed, setting, self.folder / "checkpoints" / place, model)
        return Cell(phase, contestant, job, self.folder / "cells" / f"{place}.json")


def slug(name: str) -> str:
    """A contestant's name as a folder: readable, and different for different names."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return readable if readable == name else f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
