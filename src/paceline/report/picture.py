"""One SVG for a README: for each task, final quality with intervals, and how it was learnt, or what state it took."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from paceline.core.files import write_atomic
from paceline.report.palette import INK
from paceline.report.schema import checked
from paceline.report.series import series_of
from paceline.report.words import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, GAP, HEAD = 860.0, 36.0, 30.0


def picture(result: dict[str, Any], path: Path) -> None:
    """Write the picture to `path`, atomically. Transparent, in tones that read on white and on black.

    Raises:
        PacelineError: the result is malformed.
    """
    from paceline.report.costs import HEIGHT, cost
    from paceline.report.curves import curves, curves_height
    from paceline.report.layout import write_at
    from paceline.report.quality import quality, quality_height
    from paceline.report.svg import draw, standalone

    result = checked(result)
    rows = [(task, series_of(result, task["name"])) for task in result["tasks"]]
    learned = [any(s.curves for s in series) for _, series in rows]
    heights = [
        max(quality_height(series), curves_height(series) if learns else HEIGHT) + HEAD
        for (_, series), learns in zip(rows, learned, strict=True)
    ]
    total = max(40.0, sum(heights) + GAP * (len(heights) - 1))
    half = (WIDTH - GAP) / 2

    def paint(figure: "Figure") -> None:
        top = total
        for (task, series), learns, height in zip(rows, learned, heights, strict=True):
            write_at(figure, 4, top - 18, shorten(task["title"], 90), color=INK, size=13, weight=700)
            bottom = top - height
            quality(figure, (0, bottom, half, top - HEAD), series, task)
            right = (half + GAP, bottom, WIDTH, top - HEAD)
            if learns:
                curves(figure, right, series)
            else:
                cost(figure, right, series, task, "state_bytes")
            top = bottom - GAP

    drawn = draw(WIDTH, total, "picture", paint)
    write_atomic(path, standalone(drawn, shorten(f"{result['title']}. {result['answer']}", 600)))
