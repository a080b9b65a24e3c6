"""Reward against divergence: where each way to align a model ended, seed by seed, and on average."""

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from paceline.core.files import write_atomic
from paceline.report import palette
from paceline.report.layout import axes, limits, write_at
from paceline.report.palette import INK, MUTED
from paceline.report.schema import checked
from paceline.report.svg import draw, standalone
from paceline.report.words import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 520.0, 320.0


def straying(result: dict[str, Any], path: Path) -> list[tuple[str, float, float]]:
    """Write the picture of a race of `race.aligning`.

    Args:
        result: whose finished cells have the meters `reward` and `kl`.
        path: of the SVG.

    Returns:
        Of each contestant that finished: name, mean reward, mean divergence in nats a text.

    Raises:
        PacelineError: the result is malformed.
    """
    result = checked(result)
    found: dict[str, list[tuple[float, float]]] = {}
    for cell in result["cells"]:
        if cell["status"] == "done":
            found.setdefault(cell["contestant"], []).append((cell["meters"]["kl"], cell["meters"]["reward"]))
    means = [(name, fmean(y for _, y in points), fmean(x for x, _ in points)) for name, points in found.items()]

    def paint(figure: "Figure") -> None:
        ax = axes(figure, (48, 40, WIDTH - 16, HEIGHT - 34))
        everything = [point for points in found.values() for point in points]
        ax.set_xlim(*limits([x for x, _ in everything], 0.2))
        ax.set_ylim(*limits([y for _, y in everything], 0.12))
        for name, y, x in means:
            colour = palette.hue(result["contestants"].index(name))
            xs, ys = zip(*found[name], strict=True)
            ax.scatter(xs, ys, s=14, color=colour, alpha=0.45, linewidths=0)
            ax.scatter([x], [y], s=46, color=colour, linewidths=0)
            ax.annotate(shorten(name, 28), (x, y), (6, 5), textcoords="offset points", color=INK, fontsize=10)
        write_at(figure, 8, HEIGHT - 16, "reward of held-out prompts", INK, weight=700)
        write_at(figure, WIDTH - 16, 10, "divergence from the model as it was, nats a text", MUTED, ha="right")

    write_atomic(path, standalone(draw(WIDTH, HEIGHT, "straying", paint), "Reward against divergence"))
    return means
