"""The chapter of one task: its charts, drawn, and its tables."""

from functools import partial
from typing import TYPE_CHECKING, Any

from paceline.report import tables
from paceline.report.schema import UNKNOWN
from paceline.report.series import Series, series_of
from paceline.report.words import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from markupsafe import Markup
    from matplotlib.figure import Figure

HALF, THIRD = 380.0, 320.0
"""Natural widths of the charts, px: two or three stand side by side on a desktop, one on a phone."""


def chapter(result: dict[str, Any], task: dict[str, Any], key: str) -> dict[str, Any]:
    """What the page shows of one task of a checked result; `key` keeps its ids its own."""
    from paceline.report.costs import CURRENCIES, HEIGHT, cost
    from paceline.report.curves import curves, curves_height
    from paceline.report.quality import quality, quality_height, references

    name, metric, alpha = task["name"], task["metric"], result["alpha"]
    series = series_of(result, name)
    rows = result["comparisons"].get(name, [])
    learned = any(len(curve) > 1 for s in series for curve in s.curves)
    tall = max(quality_height(series), curves_height(series) if learned else 0)
    box = (0.0, 0.0, HALF, tall)
    scored = any(s.mean is not None for s in series)
    near = references(series, task)

    def half(kind: str, label: str, paint: "Callable[[Figure], None]") -> "Markup":
        return _chart(HALF, tall, f"{key}-{kind}", label, paint)

    def against(currency: str, spoken: str) -> "Markup":
        paint = partial(cost, box=(0, 0, THIRD, HEIGHT), series=series, task=task, currency=currency)
        label = f"{metric} against {spoken} on {task['title']}; the table of standings has the numbers"
        return _chart(THIRD, HEIGHT, f"{key}-{currency}", label, paint)

    known = [c for c in CURRENCIES if any(s.mean is not None and s.costs.get(c, 0) > 0 for s in series)]
    drawn_curves = partial(curves, box=box, series=series)
    return task | {
        "key": key,
        "budget": result["tokens"].get(name),
        "parameters": result["parameters"].get(name),
        "far": [end for end in ("floor", "ceiling") if scored and task[end] is not None and end not in near],
        "quality": half("quality", _spoken(series, task), partial(quality, box=box, series=series, task=task)),
        "curves": half("curves", f"Learning curves on {task['title']}", drawn_curves) if learned else "",
        "costs": [against(currency, CURRENCIES[currency]) for currency in known],
        "standings": tables.standings(series, metric, alpha),
        "comparisons": tables.comparisons(rows, metric, alpha),
        "wide": any(row["interval_items"] for row in rows),
        "planned": any(row["more_seeds"] != UNKNOWN for row in rows),
        "duels": _duels(rows, series, task, key),
        "warnings": [row for row in result["standings"].get(name, []) if row["warning"]],
        "tuning": tables.tuning([t for t in result["tuning"] if t["task"] == name], {s.name: s.rates for s in series}),
    }


def _duels(rows: list[dict[str, Any]], series: list[Series], task: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Wins and losses by item: the chart, the pairs for which it has no room as a table, how many items there were."""
    from paceline.report.items import ROW, drawn, duels, items, spoken

    found = duels(rows, series)
    if not found:
        return None
    shown = drawn(found)
    totals = {duel.total for duel in found}
    height = ROW * len(shown) - 8
    paint = partial(items, box=(0, 0, HALF, height), shown=shown)
    return {
        "chart": _chart(HALF, height, f"{key}-items", f"Items on {task['title']}: {spoken(shown)}", paint),
        "leader": shown[0].left[0] if len(shown) < len(found) else None,
        "table": tables.items(found) if len(shown) < len(found) else None,
        "total": totals.pop() if len(totals) == 1 else None,
    }


def _chart(width: float, height: float, name: str, label: str, paint: "Callable[[Figure], None]") -> "Markup":
    """A chart as markup that is ours: matplotlib and ElementTree escape the names in it."""
    from markupsafe import Markup

    from paceline.report.svg import draw, inline

    return Markup(inline(draw(width, height, name, paint), label))


def _spoken(series: list[Series], task: dict[str, Any]) -> str:
    """The chart of quality in words, for those who cannot see it."""
    scores = ", ".join(f"{s.name} {number(s.mean)}" for s in series if s.mean is not None)
    return f"Final {task['metric']} on {task['title']}, {task['better']} is better: {scores or 'no finished cell'}"
