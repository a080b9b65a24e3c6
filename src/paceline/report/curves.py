"""The chart of learning curves: the mean over seeds as a line, the range of seeds as a band."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paceline.report import palette
from paceline.report.layout import Box, axes, fit, limits, spread, text_width, write_at
from paceline.report.palette import INK, MUTED
from paceline.report.series import Series
from paceline.report.words import prefixed, shorten

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    Curve = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

STEPS = 120
"""Curves with more points than this are averaged in as many steps."""
START = 0.2
"""Share of the tokens from which the loss axis counts: the fall from the untrained loss would flatten the rest."""


def mean_curve(seeds: Sequence[Sequence[Sequence[float]]]) -> "Curve":
    """`(tokens, mean, lowest, highest)` over seeds, each of one length, where every seed has been measured.

    Long curves are averaged in `STEPS` steps first. Empty arrays where the seeds have no tokens in common.
    """
    import numpy as np

    arrays = [np.asarray(seed, dtype=float) for seed in seeds if len(seed)]
    start = max((float(a[0, 0]) for a in arrays), default=1.0)
    end = min((float(a[-1, 0]) for a in arrays), default=0.0)
    if start > end:
        return np.empty(0), np.empty(0), np.empty(0), np.empty(0)
    grid = np.unique(np.concatenate([a[:, 0] for a in arrays]))
    grid = grid[(grid >= start) & (grid <= end)]
    if len(grid) > STEPS:
        edges = np.linspace(start, end, STEPS + 1)
        arrays = [_averaged(a[(a[:, 0] >= start) & (a[:, 0] <= end)], edges) for a in arrays]
        grid = (edges[1:] + edges[:-1]) / 2
    values = np.stack([np.interp(grid, a[:, 0], a[:, 1]) for a in arrays])
    return grid, values.mean(0), values.min(0), values.max(0)


def _averaged(curve: "np.ndarray", edges: "np.ndarray") -> "np.ndarray":
    """The mean point (tokens, loss) of every step that holds any: (points, 2) -> (steps, 2)."""
    import numpy as np

    step = np.clip(np.searchsorted(edges, curve[:, 0], side="right") - 1, 0, len(edges) - 2)
    _, where = np.unique(step, return_inverse=True)
    sizes = np.bincount(where)
    return np.stack([np.bincount(where, weights=curve[:, i]) / sizes for i in (0, 1)], axis=1)


def curves_height(series: Sequence[Series]) -> float:
    """Height in px that `curves` wants for these contestants."""
    return max(270.0, 13.5 * len(series) + 76)


def curves(figure: "Figure", box: Box, series: Sequence[Series]) -> None:
    """Loss against training tokens; each line carries its contestant's name at its end."""
    left, bottom, right, top = box
    drawn = [(s, curve) for s in series if len((curve := mean_curve(s.curves))[0])]
    names = [fit(s.name, 0.34 * (right - left)) for s, _ in drawn]
    room = max((text_width(name) for name in names), default=0.0) + 20
    ax = axes(figure, (left + 34, bottom + 34, right - room, top - 28))
    last = max((float(curve[0][-1]) for _, curve in drawn), default=1.0) or 1.0
    seen = [float(v) for _, curve in drawn for k in (2, 3) for v in curve[k][curve[0] >= START * last]]
    ax.set_xlim(0, last)
    ax.set_ylim(*limits(seen))
    ax.locator_params(axis="x", nbins=4)
    ax.locator_params(axis="y", nbins=6)
    ax.xaxis.set_major_formatter(lambda value, _: prefixed(value))
    ends = []
    for (s, (tokens, middle, lowest, highest)), name in reversed(list(zip(drawn, names, strict=True))):
        colour = palette.hue(s.index)
        ax.fill_between(tokens, lowest, highest, color=colour, alpha=0.16, linewidth=0)
        ax.plot(tokens, middle, color=colour, linewidth=1.7, linestyle=palette.dash(s.index))
        end = ax.plot(tokens[-1:], middle[-1:], palette.marker(s.index), color=colour, markersize=6, markeredgewidth=0)
        end[0].set_clip_on(False)
        ends.append((s, name, *ax.transData.transform((tokens[-1], middle[-1]))))
    for (s, name, x, y), place in zip(ends, spread([y for *_, y in ends], 12.5, bottom + 34, top - 28), strict=True):
        edge = right - room + 12
        figure.add_artist(_leader([x + 4, edge - 2], [y, place], palette.hue(s.index)))
        write_at(figure, edge, place - 3.4, name, color=INK)
    unit = next((s.curve_unit for s, _ in drawn if s.curve_unit), "")
    write_at(figure, left, top - 14, f"training loss{', ' if unit else ''}{shorten(unit, 36)}", color=MUTED)
    write_at(figure, right - room, bottom + 5, "training tokens", color=MUTED, ha="right")


def _leader(xs: list[float], ys: list[float], colour: str) -> "Line2D":
    """A thin line from a curve's end to its label, in px of the figure."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import IdentityTransform

    return Line2D(xs, ys, color=colour, linewidth=0.8, alpha=0.7, transform=IdentityTransform())
