"""`paceline race ... --on-model MODEL`: ways to decode one given model, side by side."""

import hashlib
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from paceline.cli.progress import Progress
from paceline.cli.race import show_result
from paceline.core.errors import PacelineError
from paceline.data._corpus import default_documents
from paceline.lm.open import open_lm, strategy
from paceline.race.contestant import Event
from paceline.race.decoding import Decoding, Prompts, read_prompts
from paceline.race.pool import Limits
from paceline.race.run import race
from paceline.report import write

CONTESTANTS = ("greedy", "lookup", "int8")
TOKENS, DEFAULT_PROMPTS, PROMPT_BYTES = 64, 32, 600


def run(
    contestants: Sequence[str],
    model: str | None,
    prompts: Path | None,
    tokens: int | None,
    seeds: int | None,
    out: Path | None,
    confirm: bool,
    others: Sequence[str],
    as_json: bool,
) -> None:
    """Race, one cell at a time with all cores, then print the tables, where the page is, and the winner's command."""
    if model is None:
        raise PacelineError("--prompts needs --on-model: the folder of a model, or smollm2.")
    if others:
        raise PacelineError(f"{others[0]} does not go with --on-model, where nothing is trained: leave it out.")
    console = Console(stderr=as_json)
    texts = default_prompts() if prompts is None else read_prompts(prompts)
    task = Prompts(texts, model, tokens or TOKENS)
    names = list(contestants) or list(CONTESTANTS)
    opened = open_lm(model)
    for name in names:
        changed, how = strategy(name, opened)
        how.prepare(changed.lm)
    del opened
    if out is None:
        everything = repr((names, model, task.texts, task.length, seeds))
        out = Path("runs") / f"decode-{hashlib.sha256(everything.encode()).hexdigest()[:8]}"
    if out.exists() and not out.is_dir():
        raise PacelineError(f"--out {out} is a file: give a folder.")
    limits = Limits(workers=1, threads=os.cpu_count() or 1)
    try:
        with Progress(console) as progress:
            result = race(
                [Decoding(name) for name in names], [Event(task, 0, 0, 1)], out=out, seeds=seeds, confirm=confirm,
                limits=limits, watcher=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        console.print(
            f"Stopped. Finished cells are kept in {out}: the same command goes on from there.", highlight=False
        )
        raise typer.Exit(130) from None
    page = write(result, out / "report.html")
    if as_json:
        print(json.dumps(result))
    else:
        show_result(console, result, page)
        winner = result["winner"]
        if winner:
            console.print(
                f"Use it: paceline generate {shlex.quote(model)} --decode {shlex.quote(winner['contestant'])} "
                "--prompt 'The '",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
    if all(cell["status"] == "failed" for cell in result["cells"]):
        raise PacelineError(f"Every cell failed; the first said: {result['cells'][0]['reason']}")


def default_prompts() -> list[str]:
    """Beginnings of the documentation topics and modules that come with Python, as many of each."""
    documents = [document for document in default_documents() if len(document.content) > 2 * PROMPT_BYTES]
    step = max(1, len(documents) // DEFAULT_PROMPTS)
    return [d.content[:PROMPT_BYTES].decode(errors="ignore") for d in documents[::step]]
