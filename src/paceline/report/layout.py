"""Where the labels of a chart go, so that none covers another; and axes drawn quietly."""

import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paceline.report.palette import LINE, MUTED
from paceline.report.words import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = 10.5
"""Font size of charts, px at their natural width; axes and labels are a little smaller."""
SMALL = 9.5

Box = tuple[float, float, float, float]
"""left, bottom, right, top in px."""


def axes(figure: "Figure", box: Box) -> "Axes":
    """Axes at `box` px of the figure (from its lower left): no frame, faint grid, muted ticks."""
    width, height = figure.get_size_inches() * 72
    left, bottom, right, top = box
    ax = figure.add_axes((left / width, bottom / height, (right - left) / width, (top - bottom) / height))
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(color=LINE, linewidth=0.8)
    ax.tick_params(length=0, labelcolor=MUTED, labelsize=SMALL, pad=5)
    return ax


def write_at(
    figure: "Figure",
    x: float,
    y: float,
    text: str,
    color: str,
    ha: str = "left",
    size: float = SMALL,
    weight: int = 400,
) -> None:
    """Text with its baseline at `x`, `y` px of the figure."""
    from matplotlib.transforms import IdentityTransform

    figure.text(x, y, text, color=color, ha=ha, size=size, weight=weight, transform=IdentityTransform())


def text_width(text: str, size: float = SMALL) -> float:
    """Width of a text in px; of wide East Asian characters, which our font may lack, a full square each."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    wide = [unicodedata.east_asian_width(char) in "WF" for char in text]
    rest = "".join(char for char, is_wide in zip(text, wide, strict=True) if not is_wide)
    width, _, _ = text_to_path.get_text_width_height_descent(rest, FontProperties(size=size), ismath=False)
    return float(width) + size * sum(wide)


def fit(text: str, room: float, size: float = SMALL) -> str:
    """`text`, shortened in its middle as far as `room` px ask for."""
    most = min(len(text), 80)  # a chart has never room for more; measuring costs
    while most > 3 and text_width(shorten(text, most), size) > room:
        most -= 1
    return shorten(text, most)


def limits(values: Sequence[float], pad: float = 0.06) -> tuple[float, float]:
    """Bounds around `values` with a margin; never empty, (0, 1) of nothing."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = (high - low) * pad or max(abs(high) * 0.02, 1e-3)
    return low - margin, high + margin


def log_ticks(low: float, high: float, most: int = 4) -> list[float]:
    """At most `most` round numbers between two positive bounds, from the roundest kind that gives at least two."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    best: list[float] = []
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), tuple(range(1, 10)), tuple(i / 10 for i in range(10, 100))):
        ticks = [s * 10.0**power for power in range(first, last + 1) for s in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        best = ticks[:: math.ceil(len(ticks) / most)] if ticks else best
        if len(best) >= 2:
            break
    return best


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions nearest to `wanted` (least squares) that keep their order and lie at least `gap` apart.

    They stay within [low, high] where there is room, else they overrun it on both sides. This is isotonic
    regression of `wanted - rank * gap`, by pooling adjacent violators.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    pools: list[tuple[float, int]] = []
    for rank, i in enumerate(order):
        total, size = wanted[i] - rank * gap, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / size:
            before = pools.pop()
            total, size = total + before[0], size + before[1]
        pools.append((total, size))
    flat = [total / size for total, size in pools for _ in range(size)]
    roof = high - gap * (len(order) - 1)
    places = [0.0] * len(order)
    for rank, i in enumerate(order):
        centre = (low + roof) / 2 if roof < low else min(max(flat[rank], low), roof)
        places[i] = centre + rank * gap
    return places


def beside(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    line: float,
    frame: Box,
    obstacles: Sequence[Box] = (),
) -> list[Box | None]:
    """For each point, a free box for a label of that width and `line` px height; `None` where all are taken.

    Tries right, left, above, below, then the corners; never over another point, label or obstacle, never out of
    `frame`. All in px.
    """
    radius = 6.0
    taken: list[Box] = [*obstacles, *((x - radius, y - radius, x + radius, y + radius) for x, y in points)]
    boxes: list[Box | None] = []
    for (x, y), width in zip(points, widths, strict=True):
        half, middle = line / 2, width / 2
        corners = [
            (x + radius, y - half), (x - radius - width, y - half), (x - middle, y + radius),
            (x - middle, y - radius - line), (x + 3, y + radius), (x + 3, y - radius - line),
            (x - 3 - width, y + radius), (x - 3 - width, y - radius - line),
        ]  # fmt: skip
        tried = ((left, bottom, left + width, bottom + line) for left, bottom in corners)
        box = next((b for b in tried if _inside(b, frame) and not any(_overlap(b, t) for t in taken)), None)
        boxes.append(box)
        if box:
            taken.append(box)
    return boxes


def _inside(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
