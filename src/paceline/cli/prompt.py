"""`paceline prompt`: a pipeline around a model, run on named texts; `paceline race --questions`: several of them."""

import hashlib
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from paceline.cli.numbers import check_numbers
from paceline.cli.race import run_and_show
from paceline.core.errors import PacelineError
from paceline.lm.text_model import text_model
from paceline.prompt._contract import Answer, Budget, Counted, Pipeline
from paceline.prompt.studio import Failed
from paceline.race.contestant import Event
from paceline.race.pool import Limits
from paceline.race.prompting import Prompted, Questions, pipeline, read_questions
from paceline.report.words import shorten, visible

LONGEST = 2**22
"""Bytes of an input."""
ITEMS = 8
"""Questions of a seed."""


def run(
    name: str,
    model: str,
    inputs: Sequence[str],
    calls: int | None,
    tokens: int | None,
    chat: bool,
    steps: bool,
    as_json: bool,
) -> None:
    """Print the answer.

    Args:
        name: the pipeline, such as `pearl(...)`, or the JSON file of a graph.
        model: a folder, a known name, or an endpoint, such as `http://host/v1#name`.
        inputs: `name=text` or `name=@file`.
        calls: the most calls of the model.
        tokens: the most tokens read and written.
        chat: whether an opened model is asked in the form of a chat.
        steps: whether what was done on the way is shown, too.
        as_json: print a record.
    """
    given, budget = read_inputs(inputs), Budget(calls, tokens)
    made = pipeline(name)
    counted = Counted(text_model(model, chat=True if chat else None), budget)
    errors = Console(stderr=True, highlight=False)
    try:
        asking = escape(f"{shorten(visible(name), 60)} asks {shorten(visible(model), 60)}")
        with errors.status(asking) as status:
            counted.told = lambda calls, tokens: status.update(f"{asking}: {calls} calls, {tokens:,} tokens")
            made.prepare(lambda done, of, loss: status.update(f"learning: {done} of {of}, loss {loss:.3f}"))
            answer = made.run(given, counted)
    except Failed as failed:
        _show(failed.steps, errors)
        raise
    if as_json:
        print(json.dumps(_record(answer, counted, made), indent=1))
        return
    if steps:
        _show(answer.steps, errors)
    if not answer.complete:
        errors.print(
            f"The budget ended first, after {counted.calls} calls and {counted.tokens:,} tokens.", markup=False
        )
    print(visible(answer.text, keep="\n\t"))


def race(
    contestants: Sequence[str],
    model: str,
    questions: Path,
    calls: int | None,
    tokens: int | None,
    seeds: int | None,
    out: Path | None,
    confirm: bool,
    as_json: bool,
) -> None:
    """Race pipelines on a file of questions, then print the tables, where the page is, and the winner's command."""
    check_numbers(seeds=seeds)
    if len(contestants) < 2:
        raise PacelineError("A race needs two pipelines at least: name some, or give JSON files of graphs.")
    task = Questions(read_questions(questions), model, Budget(calls, tokens), ITEMS)
    for name in contestants:
        pipeline(name)  # what cannot be made is told before anything runs
    if out is None:
        everything = repr((list(contestants), task.describe(), seeds))
        out = Path("runs") / f"prompt-{hashlib.sha256(everything.encode()).hexdigest()[:8]}"
    asked = " ".join(f"--input {shlex.quote(f'{name}=...')}" for name in task.questions[0].inputs)
    run_and_show(
        [Prompted(name) for name in contestants], [Event(task, 0, 0, 1)], out, as_json,
        lambda winner: f"paceline prompt {shlex.quote(winner)} --on-model {shlex.quote(model)} {asked}",
        seeds=seeds, confirm=confirm, limits=Limits(workers=1, threads=os.cpu_count() or 1),
    )  # fmt: skip


def read_inputs(given: Sequence[str]) -> dict[str, str]:
    """The texts in `name=text` and `name=@file`.

    Raises:
        PacelineError: one is not of this form, is given twice, or its file cannot be read.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise PacelineError(f"--input takes NAME=TEXT or NAME=@FILE, not {text[:60]!r}.")
        if name in found:
            raise PacelineError(f"--input {name} is given twice: keep one.")
        found[name] = _file(name, Path(value[1:])) if value.startswith("@") else value
    return found


def _file(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST + 1)
    except OSError as error:
        raise PacelineError(f"Cannot read {str(path)[:200]!r} for --input {name} ({error.strerror}).") from error
    if len(content) > LONGEST:
        raise PacelineError(f"{str(path)[:200]!r} has more than {LONGEST >> 20} MiB: give a part of it.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PacelineError(f"{str(path)[:200]!r} is not UTF-8: convert it.") from error


def _record(answer: Answer, counted: Counted, made: Pipeline) -> dict[str, object]:
    steps = [{"step": step, "output": output} for step, output in answer.steps]
    return {
        "answer": answer.text, "complete": answer.complete, "calls": counted.calls, "tokens": counted.tokens,
        "steps": steps, "meters": made.meters(),
    }  # fmt: skip


def _show(steps: Sequence[tuple[str, str]], console: Console) -> None:
    for step, output in steps:
        text = visible(output, keep="\n\t")
        console.print(f"{visible(step)}: {text}", markup=False, soft_wrap=True)
