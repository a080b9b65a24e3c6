"""The standings for a terminal of 80 columns."""

from typing import TYPE_CHECKING, Any

from paceline.core.errors import PacelineError, suggest
from paceline.report.schema import checked
from paceline.report.series import series_of
from paceline.report.words import column, decimals, number, span

if TYPE_CHECKING:
    import rich.table

COSTS = ("flops", "seconds", "state_bytes")
"""What fits; the page has every currency, learning rates and meters."""


def table(result: dict[str, Any], task: str) -> "rich.table.Table":
    """The standings of one task, best first, as a `rich` table, warnings below; names are text, never markup.

    Raises:
        PacelineError: the result has no such task, or is malformed.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = checked(result)
    found = next((t for t in result["tasks"] if t["name"] == task), None)
    if found is None:
        names = [t["name"] for t in result["tasks"]]
        known = ", ".join(names) or "none"
        raise PacelineError(f"The result has no task {task!r}; it has {known}.{suggest(task, names)}")
    series = series_of(result, task)
    digits = decimals([s.interval for s in series])
    columns = [
        ("contestant", [s.name for s in series]),
        (found["metric"], [number(s.mean, digits) for s in series]),
        (f"{100 * (1 - result['alpha']):g} % interval", [span(s.interval, digits) for s in series]),
        ("seeds", [f"{s.done} of {s.done + s.failed}" for s in series]),
        *(
            column(cost, [s.costs.get(cost) for s in series])
            for cost in COSTS
            if any(s.costs.get(cost) for s in series)
        ),
    ]
    style: dict[str, Any] = {
        "box": box.SIMPLE_HEAD,
        "title_justify": "left",
        "padding": (0, 1, 0, 0),
        "pad_edge": False,
    }
    warnings = [f"{row['contestant']}: {row['warning']}" for row in result["standings"].get(task, []) if row["warning"]]
    below = Text("\n".join(warnings)) if warnings else None
    shown = Table(title=Text(found["title"]), caption=below, caption_justify="left", **style)
    for i, (header, _) in enumerate(columns):
        # Only names may shrink: a number folded over two lines cannot be read.
        text = Text(header if i in (0, 2) else "\n".join(header.split()), overflow="fold")
        shown.add_column(text, justify="right" if i else "left", overflow="fold", no_wrap=i > 0, vertical="bottom")
    for s, row in zip(series, zip(*(texts for _, texts in columns), strict=True), strict=True):
        shown.add_row(*(Text(text) for text in row), style="bold" if s.rank == 1 else None)
    return shown
