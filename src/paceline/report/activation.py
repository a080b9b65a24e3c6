"""One SVG: the share of tokens that a contestant's layers activate, task by task, every seed a dot."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paceline.core.errors import PacelineError
from paceline.core.files import write_atomic
from paceline.report import palette
from paceline.report.layout import SIZE, Box, axes, fit, text_width, write_at
from paceline.report.palette import INK, LINE, MUTED
from paceline.report.words import mean, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, ROW, HEAD, FOOT = 640.0, 17.0, 24.0, 40.0
METER = "activated."


@dataclass(frozen=True)
class Activation:
    """One contestant on one task."""

    task: str
    """Title."""
    layers: dict[int, list[float]]
    """Share of tokens that the layer activated, one number per finished seed."""


def activations(result: dict[str, Any], contestant: str) -> list[Activation]:
    """What the layers of `contestant` activated on each task of a race's or a claim's result."""
    found = []
    for task in result["tasks"]:
        layers: dict[int, list[float]] = {}
        for cell in result["cells"]:
            if (cell["task"], cell["contestant"], cell["status"]) == (task["name"], contestant, "done"):
                for name, value in sorted(cell["meters"].items()):
                    if name.startswith(METER):
                        layers.setdefault(int(name.removeprefix(METER)), []).append(value)
        if layers:
            found.append(Activation(task["title"], layers))
    return found


def activation_picture(rows: Sequence[Activation], path: Path) -> None:
    """Write the picture to `path`, atomically. Transparent, in tones that read on white and on black.

    Raises:
        PacelineError: there is nothing to draw.
    """
    from paceline.report.svg import draw, standalone

    if not rows:
        raise PacelineError("No contestant of this result activated tokens: there is nothing to draw.")
    total = sum(HEAD + ROW * len(row.layers) for row in rows) + FOOT
    drawn = draw(WIDTH, total, "activation", lambda figure: _paint(figure, rows, total))
    spoken = "; ".join(
        f"{row.task}: " + ", ".join(f"layer {i} {mean(seeds):.0%}" for i, seeds in row.layers.items()) for row in rows
    )
    write_atomic(path, standalone(drawn, shorten(f"Share of tokens activated. {spoken}", 600)))


def _paint(figure: "Figure", rows: Sequence[Activation], total: float) -> None:
    names = [f"layer {i}" for row in rows for i in row.layers]
    left = max(text_width(name) for name in names) + 16
    box: Box = (left, FOOT - 6, WIDTH - 60, total)
    ax = axes(figure, box)
    ax.set_xlim(-0.01, 1.01)
    ax.set_ylim(0, total - FOOT + 6)
    ax.set_yticks([])
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    y = total
    for row in rows:
        y -= HEAD
        write_at(figure, 4, y + 5, fit(row.task, WIDTH - 8, SIZE), INK, size=SIZE, weight=700)
        for index, seeds in row.layers.items():
            middle = y - ROW / 2 - box[1]
            share = mean(seeds) or 0.0
            ax.plot([0, 1], [middle] * 2, color=LINE, linewidth=0.8)
            ax.plot([0, share], [middle] * 2, color=palette.hue(0), linewidth=7, alpha=0.35, solid_capstyle="butt")
            ax.scatter(seeds, [middle] * len(seeds), s=13, color=palette.hue(0), alpha=0.65, linewidths=0)
            write_at(figure, 4, y - ROW / 2 - 3, f"layer {index}", MUTED)
            write_at(figure, WIDTH - 4, y - ROW / 2 - 3, f"{share:.0%}", INK, ha="right")
            y -= ROW
    write_at(figure, (box[0] + box[2]) / 2, 6, "share of tokens activated", MUTED, ha="center")
