"""Who looks on while a race runs. A file of its own: showing progress needs none of what a race needs."""

from typing import Any

from paceline.race.cell import Cell


class Watcher:
    """Hears how a race goes. This one is silent; subclasses show progress."""

    def begin(self, cells: int) -> None:
        """The grid has `cells` cells; those of an earlier call are reported by `finish` at once."""

    def step(self, cell: Cell, done: int, of: int, loss: float) -> None:
        """A running cell has taken `done` of its `of` steps."""

    def finish(self, cell: Cell, record: dict[str, Any]) -> None:
        """A cell is over; its record says how."""
