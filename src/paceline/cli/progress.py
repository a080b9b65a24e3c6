"""How a race looks while it runs: a bar over all cells and a line for each running one."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from paceline.race.cell import Cell
from paceline.race.watcher import Watcher


class Progress(Watcher):
    """Live bars on a terminal; a line for each finished cell elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Bars(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self.cells = self.over = 0
        self.shares: dict[str, float] = {}
        self.lines: dict[str, TaskID] = {}
        self.all: TaskID | None = None

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def begin(self, cells: int) -> None:
        """See `Watcher.begin`; of races one after the other, the cells add up."""
        self.cells += cells
        if self.all is None:
            self.all = self.bars.add_task("race", note="")
        self.bars.update(self.all, total=self.cells)

    def step(self, cell: Cell, done: int, of: int, loss: float) -> None:
        """See `Watcher.step`."""
        key = str(cell.record)
        if key not in self.lines:
            self.lines[key] = self.bars.add_task(f"  {cell.label}", total=of, note="")
        self.bars.update(self.lines[key], completed=done, note=f"loss {loss:.3f}")
        self.shares[key] = done / of
        self._show()

    def finish(self, cell: Cell, record: dict[str, Any]) -> None:
        """See `Watcher.finish`."""
        key = str(cell.record)
        self.shares.pop(key, None)
        if key in self.lines:
            self.bars.remove_task(self.lines.pop(key))
        self.over += 1
        task = cell.job.event.task
        score = f"{record['score']:.3f} {task.metric}" if record["status"] == "done" else f"failed: {record['reason']}"
        if not self.console.is_terminal or record["status"] == "failed":
            line = f"cell {self.over} of {self.cells}: {cell.phase}, {cell.label}, rate {cell.job.setting:g}: {score}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._show()

    def _show(self) -> None:
        if self.all is not None:
            note = f"cell {min(self.over + 1, self.cells)} of {self.cells}"
            self.bars.update(self.all, completed=self.over + sum(self.shares.values()), note=note)
