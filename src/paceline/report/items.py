"""The chart of items: for each pair, on how many evaluation items the one is ahead, neither is, the other is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paceline.report import palette
from paceline.report.layout import SIZE, Box, axes, fit, text_width, write_at
from paceline.report.palette import INK, MUTED
from paceline.report.series import Series
from paceline.report.words import count, p_value, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 58.0
"""Height of a pair's row, px."""
MOST = 6
"""Pairs that are all drawn (those of four contestants); of more, only the best-placed contestant's."""
GAP = 2.0
"""Between the parts of a bar, px: two contestants may have the same hue."""


@dataclass(frozen=True)
class Duel:
    """Two contestants on the same items, the better-placed one on the left; both by name and index."""

    left: tuple[str, int]
    right: tuple[str, int]
    ahead: int
    """Items on which the left one is better."""
    equal: int
    behind: int
    p: float | None

    @property
    def total(self) -> int:
        """All items."""
        return self.ahead + self.equal + self.behind


def duels(rows: Sequence[dict[str, Any]], series: Sequence[Series]) -> list[Duel]:
    """Every comparison that counted items, by the standing of its contestants."""
    place = {s.name: i for i, s in enumerate(series)}
    index = {s.name: s.index for s in series}
    found = []
    for row in rows:
        won = row["items"]
        if won is None or row["a"] not in place or row["b"] not in place:
            continue
        one, two = ("a", "b") if place[row["a"]] <= place[row["b"]] else ("b", "a")
        left, right = ((row[side], index[row[side]]) for side in (one, two))
        found.append(Duel(left, right, won[one], won["equal"], won[two], won["p"]))
    return sorted(found, key=lambda duel: (place[duel.left[0]], place[duel.right[0]]))


def drawn(found: Sequence[Duel]) -> list[Duel]:
    """The duels that the chart has room for: all, or those of the best-placed contestant."""
    return list(found) if len(found) <= MOST else [duel for duel in found if duel.left == found[0].left]


def spoken(shown: Sequence[Duel]) -> str:
    """The chart in words, for those who cannot see it."""
    return "; ".join(
        f"{d.left[0]} is ahead on {count(d.ahead)}, {d.right[0]} on {count(d.behind)}, equal on {count(d.equal)}"
        for d in shown
    )


def items(figure: "Figure", box: Box, shown: Sequence[Duel]) -> None:
    """One row per pair: the names at the ends, below them the bar in three parts, below that the counts."""
    left, bottom, right, top = box
    width = right - left
    ax = axes(figure, box)
    ax.set_xlim(0, width)  # px, like y, which runs downwards
    ax.set_ylim(top - bottom, 0)
    ax.set_xticks([])
    ax.set_yticks([])
    for row, duel in enumerate(shown):
        y = ROW * row
        for (name, index), side, end, sign in ((duel.left, "left", 0.0, 1), (duel.right, "right", width, -1)):
            colour = palette.hue(index)
            ax.plot([end + 5 * sign], [y + 9], palette.marker(index), color=colour, markersize=7, markeredgewidth=0)
            text = fit(name, (width / 2 - 22) / 1.12, SIZE)  # bold is wider
            write_at(figure, left + end + 14 * sign, top - y - 13, text, INK, side, SIZE, 700)
        _bar(ax, y + 19, width, duel)
        _counts(figure, left, right, top - y - 43, duel)


def _bar(ax: "Axes", y: float, width: float, duel: Duel) -> None:
    """Left part, equal part (hollow), right part; ticks above and below mark the half of all items."""
    parts = [
        (share, index)
        for share, index in ((duel.ahead, duel.left[1]), (duel.equal, None), (duel.behind, duel.right[1]))
        if share
    ]
    room, x = width - GAP * (len(parts) - 1), 0.0
    for share, index in parts:
        size = room * (share / duel.total)
        if index is None:
            ax.barh([y + 5], [size], left=x, height=9.1, facecolor="none", edgecolor=MUTED, linewidth=0.9)
        else:
            ax.barh([y + 5], [size], left=x, height=10, color=palette.hue(index), linewidth=0)
        x += size + GAP
    for end in (y - 4, y + 11):
        ax.plot([width / 2] * 2, [end, end + 3], color=MUTED, linewidth=1.1)


def _counts(figure: "Figure", left: float, right: float, y: float, duel: Duel) -> None:
    """The numbers under the bar: at its ends who is ahead how often, between them what is equal and p."""
    ends = [f"{count(n)} ({percent(n / duel.total)})" if duel.total else "0" for n in (duel.ahead, duel.behind)]
    middle = f"{count(duel.equal)} equal"
    if duel.p is not None:
        middle += f", p {p_value(duel.p)}" if duel.p < 0.001 else f", p = {p_value(duel.p)}"
    third = (right - left) / 3 - 6
    start, end = (fit(text, third) for text in ends)
    write_at(figure, left, y, start, INK)
    write_at(figure, right, y, end, INK, ha="right")
    low, high = left + text_width(start) + 8, right - text_width(end) - 8
    middle = fit(middle, high - low)
    half = text_width(middle) / 2
    write_at(figure, min(max((left + right) / 2, low + half), high - half), y, middle, MUTED, ha="center")
