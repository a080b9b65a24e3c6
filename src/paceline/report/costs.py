"""Quality against what it cost: one small chart per currency, on a logarithmic axis, with the Pareto front."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from paceline.report import palette
from paceline.report.layout import Box, axes, beside, fit, limits, log_ticks, text_width, write_at
from paceline.report.palette import INK, MUTED
from paceline.report.series import Series
from paceline.report.words import shorten, significant, unit_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURRENCIES = {"flops": "compute", "seconds": "time", "state_bytes": "state"}
"""The currencies drawn, with their names on the axis."""
HEIGHT = 250.0
NAMED = 8
"""With more contestants than this only those on the front are named: a name amid a crowd points at nobody."""


def front(points: Sequence[tuple[float, float]], better: str) -> list[int]:
    """Indices of the (cost, quality) points that no other point beats: none is both cheaper and better; by cost."""
    sign = 1 if better == "lower" else -1
    best, kept = float("inf"), []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1])):
        if sign * points[i][1] < best:
            best = sign * points[i][1]
            kept.append(i)
    return kept


def cost(figure: "Figure", box: Box, series: Sequence[Series], task: dict[str, Any], currency: str) -> None:
    """Mean quality with its interval over mean cost; a cost of zero stands at the left end, marked 0."""
    left, bottom, right, top = box
    frame = (left + 38, bottom + 34, right - 10, top - 28)
    ax = axes(figure, frame)
    drawn = [s for s in series if s.mean is not None and s.costs.get(currency, -1) >= 0]
    spent = [s.costs[currency] for s in drawn]
    positive = [c for c in spent if c > 0]
    low, high = (min(positive), max(positive)) if positive else (1.0, 1.0)
    zero = low / 3 if 0 in spent else None
    ax.set_xscale("log")
    ax.set_xlim((zero or low) / 1.35, high * 1.35)
    ax.set_ylim(*limits([v for s in drawn for v in (s.mean or 0.0, *(s.interval or []))], 0.12))
    ax.locator_params(axis="y", nbins=6)
    unit, divisor = unit_for(currency, spent)
    ticks = [t * divisor for t in log_ticks(low / 1.3 / divisor, high * 1.3 / divisor)] if positive else []
    _label(ax, [*([zero] if zero else []), *ticks], ["0"] * bool(zero) + [_brief(t / divisor) for t in ticks])
    ax.set_xticks([], minor=True)
    points = [(c or zero or low, s.mean or 0.0) for c, s in zip(spent, drawn, strict=True)]
    best = front(points, task["better"])
    if best:
        xs, ys = zip(*(points[i] for i in best), strict=True)
        edge = ax.get_xlim()[1]
        ax.plot([*xs, edge], [*ys, ys[-1]], color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)), drawstyle="steps-post")
    for s, (x, y) in zip(drawn, points, strict=True):
        colour = palette.hue(s.index)
        if s.interval:
            ax.plot([x, x], s.interval, color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        ax.plot([x], [y], palette.marker(s.index), color=colour, markersize=7.5, markeredgewidth=0)
    to_px = ax.transData.transform
    pixels = [(float(x), float(y)) for x, y in (to_px(point) for point in points)]
    bars = [
        (x - 3.0, float(to_px((1, s.interval[0]))[1]), x + 3.0, float(to_px((1, s.interval[1]))[1]))
        for s, (x, _) in zip(drawn, pixels, strict=True)
        if s.interval
    ]
    crowded = len(drawn) > NAMED
    names = ["" if crowded and i not in best else fit(s.name, 0.4 * (right - left)) for i, s in enumerate(drawn)]
    places = beside(pixels, [text_width(name) for name in names], 12, (frame[0], frame[1], right, frame[3] + 6), bars)
    for name, (x, _), place in zip(names, pixels, places, strict=True):
        if place and name:
            middle = (place[0] + place[2]) / 2
            side = "left" if place[0] > x else "right" if place[2] < x else "center"
            write_at(figure, {"left": place[0], "right": place[2]}.get(side, middle), place[1] + 2.5, name, INK, side)
    arrow = "↓" if task["better"] == "lower" else "↑"
    write_at(figure, left, top - 14, f"{arrow} {shorten(task['metric'], 40)}", color=MUTED)
    write_at(figure, frame[2], bottom + 5, f"{CURRENCIES[currency]}, {unit}", color=MUTED, ha="right")


def _brief(value: float) -> str:
    """Three significant digits without trailing zeros."""
    text = significant(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _label(ax: "Axes", ticks: Sequence[float], names: Sequence[str]) -> None:
    """Set the ticks of the x axis, less those whose name would touch the one before."""
    kept: list[int] = []
    edge = float("-inf")
    for i, (tick, name) in enumerate(zip(ticks, names, strict=True)):
        x, half = float(ax.transData.transform((tick, 1.0))[0]), text_width(name) / 2
        if x - half >= edge:
            kept.append(i)
            edge = x + half + 6
    ax.set_xticks([ticks[i] for i in kept], [names[i] for i in kept])
