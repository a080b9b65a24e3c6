"""`paceline evaluate`: how far a model's long context really reaches, as a table and a small picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from paceline.core.discovery import find, part
from paceline.core.errors import PacelineError
from paceline.core.files import write_atomic
from paceline.core.spec import check, parse
from paceline.evaluate._answer import chosen, written
from paceline.evaluate._contract import Evaluation
from paceline.report.words import shorten, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from paceline.lm.open import Opened

LONGEST = 1_000_000
BAR = 24
"""Characters of a full bar."""


def run(
    model: str, how: str, lengths: str, items: int, write: bool, picture: Path | None, as_json: bool, seed: int = 0
) -> None:
    """Ask a model the same questions at each length, and print how many it answers.

    Args:
        model: see `lm.open.open_lm`.
        how: the evaluation, such as `latent_list(operations=5)`.
        lengths: tokens of the prompts, such as `512,1024,2048`.
        items: questions at each length.
        write: let the model write its answers instead of choosing the likeliest of the options.
        picture: SVG file to write.
        as_json: print JSON instead of the table.
        seed: other questions with another.

    Raises:
        PacelineError: what was asked for makes no sense, or the model reads no prompts so long.
    """
    spec = parse(how)
    if find(spec.name)[0] != "evaluate":
        raise PacelineError(f"--with {how!s:.80} is no evaluation: `paceline list evaluate` shows them.")
    kind: Any = part("evaluate", spec.name)
    check(spec, kind)
    evaluation: Evaluation = kind(**spec.arguments)
    sizes = _sizes(lengths)
    if items < 1:
        raise PacelineError(f"--items must be at least 1, not {items}.")
    from paceline.lm.open import open_lm

    opened = open_lm(model)
    longest = getattr(opened.lm, "longest", LONGEST)
    if sizes[-1] + 64 > longest:
        raise PacelineError(
            f"{model} reads {longest:,} tokens at most, prompt and answer: give lengths up to {longest - 64:,}."
        )
    rows = [row(evaluation, opened, size, items, write, seed) for size in sizes]
    if as_json:
        print(json.dumps({"model": model, "with": str(spec), "written": write, "floor": _floor(evaluation, write),
                          "lengths": rows}))  # fmt: skip
    else:
        Console().print(_table(evaluation, model, rows, write))
    if picture is not None:
        _draw(evaluation, model, rows, write, picture)


def row(evaluation: Evaluation, opened: "Opened", length: int, items: int, write: bool, seed: int) -> dict[str, Any]:
    """Scores of the questions number `seed * items` and on, in prompts of one length."""
    scores = []
    bars = Progress(
        TextColumn(f"{length:,} tokens"), BarColumn(bar_width=BAR), MofNCompleteColumn(), transient=True,
        console=(console := Console(stderr=True)), disable=not console.is_terminal,
    )  # fmt: skip
    with bars:
        for number in bars.track(range(seed * items, (seed + 1) * items)):
            item = evaluation.item(opened.words, length, number)
            if write:
                scores.append(evaluation.score(written(opened.lm, opened.words, item, ends=opened.ends), item))
            else:
                scores.append(chosen(opened.lm, opened.words, evaluation, item))
    error = stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else None
    return {"length": length, "score": fmean(scores), "error": error, "items": items}


def _sizes(lengths: str) -> list[int]:
    """Ascending."""
    try:
        sizes = sorted({int(size) for size in lengths.split(",")})
    except ValueError:
        raise PacelineError(f"--lengths {lengths!s:.60} are no numbers: write 512,1024,2048.") from None
    if not 1 <= sizes[0] <= sizes[-1] <= LONGEST:
        raise PacelineError(f"--lengths must lie between 1 and {LONGEST:,}.")
    return sizes


def _floor(evaluation: Evaluation, write: bool) -> float:
    return 0.0 if write else evaluation.floor


def _table(evaluation: Evaluation, model: str, rows: Sequence[dict[str, Any]], write: bool) -> Table:
    table = Table(title=f"{evaluation.title}: {shorten(visible(model), 60)}", title_justify="left", box=None)
    for name, side in (("tokens", "right"), ("score", "right"), ("± error", "right"), ("", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for found in rows:
        error = "" if found["error"] is None else f"{found['error']:.2f}"
        bar = "█" * round(BAR * found["score"])
        table.add_row(f"{found['length']:,}", f"{found['score']:.2f}", error, bar)
    how = "written answers" if write else f"likeliest option; a guess scores {evaluation.floor:.2f}"
    table.caption = f"{rows[0]['items']} questions a length, {how}"
    return table


def _draw(evaluation: Evaluation, model: str, rows: Sequence[dict[str, Any]], write: bool, path: Path) -> None:
    """Score against length, with twice the standard error, and what guessing scores."""
    from paceline.report.palette import INK, MUTED, hue
    from paceline.report.svg import draw, standalone

    title = f"{evaluation.title}: {shorten(visible(model), 60)}"

    def paint(figure: "Figure") -> None:
        axes = figure.add_axes((0.1, 0.2, 0.86, 0.66))
        lengths, scores = [found["length"] for found in rows], [found["score"] for found in rows]
        errors = [2 * (found["error"] or 0.0) for found in rows]
        axes.errorbar(lengths, scores, yerr=errors, color=hue(0), marker="o", capsize=3)
        axes.axhline(_floor(evaluation, write), color=MUTED, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.minorticks_off()
        axes.set_ylim(-0.02, 1.02)
        axes.tick_params(colors=INK)
        axes.set_xlabel("tokens of the prompt", color=INK)
        axes.set_title(title, color=INK, loc="left")

    write_atomic(path, standalone(draw(520, 260, f"evaluate-{title}", paint), title).encode())
