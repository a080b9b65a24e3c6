"""One SVG for a README: for each task, final quality with intervals and learning curves."""

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
    from paceline.report.curves import curves, curves_height
    from paceline.report.layout import write_at
    from paceline.report.quality import quality, quality_height
    from paceline.report.svg import draw, standalone

    result = checked(result)
    rows = [(task, series_of(result, task["name"])) for task in result["tasks"]]
    heights = [max(quality_height(series), curves_height(series)) + HEAD for _, series in rows]
    total = max(40.0, sum(heights) + GAP * (len(heights) - 1))
    half = (WIDTH - GAP) / 2

    def paint(figure: "Figure") -> None:
        top = total
        for (task, series), height in zip(rows, heights, strict=True):
            write_at(figure, 4, top - 18, shorten(task["title"], 90), color=INK, size=13, weight=700)
            bottom = top - height
            quality(figure, (0, bottom, half, top - HEAD), series, task)
            curves(figure, (half + GAP, bottom, WIDTH, top - HEAD), series)
            top = bottom - GAP

    drawn = draw(WIDTH, total, "picture", paint)
    write_atomic(path, standalone(drawn, shorten(f"{result['title']}. {result['answer']}", 600)))
