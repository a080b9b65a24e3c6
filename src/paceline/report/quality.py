"""The chart of final quality: every seed a dot, the mean and its interval."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from paceline.report import palette
from paceline.report.layout import SIZE, SMALL, Box, axes, fit, limits, text_width, write_at
from paceline.report.palette import INK, LINE, MUTED
from paceline.report.series import Series
from paceline.report.words import DASH, decimals, number, shorten, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 38.0
"""Height of a contestant's row, px."""


def quality_height(series: Sequence[Series]) -> float:
    """Height in px that `quality` wants for these contestants."""
    return ROW * max(1, len(series)) + 50


def quality(figure: "Figure", box: Box, series: Sequence[Series], task: dict[str, Any]) -> None:
    """One row per contestant: its name and numbers, below them interval and mean, below those the seeds."""
    left, floor, right, top = box
    pitch = min(ROW * 1.4, (top - floor - 50) / max(1, len(series)))
    high = pitch * max(1, len(series))
    bottom = top - high - 50  # what is left over stays empty below
    ax = axes(figure, (left + 2, bottom + 34, right - 2, top - 16))
    shown, near = _shown(series), references(series, task)
    ax.set_xlim(*limits([*limits(shown), *near.values()], 0.02))
    ax.set_ylim(high, 0)  # so that y is in px, downwards
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=6)
    ax.grid(False)
    if not shown:
        ax.set_xticks([])
    for name, value in near.items():
        side = "left" if value < sum(ax.get_xlim()) / 2 else "right"
        ax.text(value, -4, f"↓ {name}" if side == "left" else f"{name} ↓", color=MUTED, size=SMALL, ha=side)
    digits = decimals([s.interval for s in series])
    for row, s in enumerate(series):
        _row(ax, pitch * row, s, digits, list(near.values()))
    write_at(figure, left + 2, bottom + 5, "← better" if task["better"] == "lower" else "", color=MUTED)
    write_at(figure, right - 2, bottom + 5, "better →" if task["better"] == "higher" else "", color=MUTED, ha="right")
    write_at(figure, (left + right) / 2, bottom + 5, shorten(task["metric"], 40), color=MUTED, ha="center")


def references(series: Sequence[Series], task: dict[str, Any]) -> dict[str, float]:
    """Floor and ceiling where they lie near the scores; far ones would squeeze the scores together."""
    shown = _shown(series)
    if not shown:
        return {}
    low, high = limits(shown)
    reach = high - low
    known = {name: task[name] for name in ("floor", "ceiling") if task[name] is not None}
    return {name: value for name, value in known.items() if low - reach <= value <= high + reach}


def _shown(series: Sequence[Series]) -> list[float]:
    return [v for s in series for v in (*s.scores, *(s.interval or []), *([] if s.mean is None else [s.mean]))]


def _row(ax: "Axes", y: float, s: Series, digits: int, near: list[float]) -> None:
    colour, across = palette.hue(s.index), ax.get_yaxis_transform()
    ax.axhline(y + 24, color=LINE, linewidth=0.8)
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    ax.vlines(ticks, y + 19, y + 36, color=LINE, linewidth=0.8)  # no further: they would run through the numbers
    ax.vlines(near, y + 17, y + 38, color=MUTED, linewidth=1.2, linestyle=(0, (2, 1.5)))
    value = number(s.mean, digits) if s.mean is not None else "no finished seed" if s.failed else DASH
    if s.interval:
        value += f"  ({span(s.interval, digits)})"
        ax.plot(s.interval, [y + 24] * 2, color=colour, linewidth=6, alpha=0.4, solid_capstyle="butt")
    ax.text(1, y + 13, value, color=MUTED, ha="right", size=SMALL, transform=across)
    room = ax.get_window_extent().width - text_width(value) - 14
    ax.text(0, y + 13, fit(s.name, room / 1.12, SIZE), color=INK, weight=700, transform=across)  # bold is wider
    if s.scores:
        ax.scatter(s.scores, [y + 32] * len(s.scores), s=13, color=colour, alpha=0.65, linewidths=0)
    if s.mean is not None:
        ax.plot([s.mean], [y + 24], palette.marker(s.index), color=colour, markersize=7, markeredgewidth=0)
