"""A race's result -> one HTML page that opens without a network: no script, no request, user text escaped."""

from pathlib import Path
from typing import Any

from paceline.core.files import write_atomic
from paceline.report import confirmation, tables, trace, words
from paceline.report.schema import checked
from paceline.report.style import css
from paceline.report.swatch import swatch
from paceline.report.task import chapter


def render(result: dict[str, Any]) -> str:
    """The page as HTML: same result, same bytes.

    Raises:
        PacelineError: the result is malformed.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    result = checked(result)
    index = {name: i for i, name in enumerate(result["contestants"])}
    tasks = [chapter(result, task, f"task-{i}") for i, task in enumerate(result["tasks"])]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8"))
    page = template.render(
        r=result,
        tasks=tasks,
        views=[view | {"strips": [Markup(layer["strip"]) for layer in view["layers"]]} for view in trace.views(result)],
        bill=tables.bill(result["bill"]),
        fresh=confirmation.view(result),
        failures=tables.failures(result),
        swatch=lambda name: Markup(swatch(index[name])) if name in index else "",
        style=Markup(css()),
        words=words,
        titles={task["name"]: task["title"] for task in tasks},
        interval=f"{100 * (1 - result['alpha']):g}\u00a0%",
        levels=trace.LEVELS,
    )
    return page.lstrip()


def write(result: dict[str, Any], path: Path) -> Path:
    """Write the page to `path`, atomically, and return it.

    Raises:
        PacelineError: the result is malformed.
        OSError: `path` cannot be written.
    """
    write_atomic(path, render(result))
    return path
