"""`paceline race ... --on-model MODEL --reward FILE.py:FUNCTION --prompts FILE`: ways to align it, side by side."""

import hashlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from paceline.align._trainer import Plan
from paceline.cli.keeping import keep_winner, result_of
from paceline.cli.numbers import check_numbers
from paceline.cli.race import run_and_show
from paceline.core.errors import PacelineError
from paceline.lm.siblings import known_or_folder
from paceline.race.aligning import BASE, Aligned, Rewarded, user_function
from paceline.race.contestant import Event
from paceline.race.pool import Limits
from paceline.race.prompts import read_prompts
from paceline.report.straying import straying

CONTESTANTS = ("apa", "ppo", "dpo", "best_of_n")
TOKENS = 24
PLAN = Plan(rounds=6, texts=32)
"""So little that four contestants take minutes with a small model on two cores."""
PICTURE = "straying.svg"


def run(
    contestants: Sequence[str],
    model: str | None,
    reward: str,
    prompts: Path | None,
    tokens: int | None,
    seeds: int | None,
    out: Path | None,
    keep: Path | None,
    confirm: bool,
    others: Sequence[str],
    as_json: bool,
) -> None:
    """Race, print the tables and reward against divergence, and keep the winner where one is asked for.

    Raises:
        PacelineError: what is needed is missing, or what is given does not go together.
    """
    if model is None or prompts is None:
        raise PacelineError("--reward aligns a model: give --on-model, a folder or smollm2, and --prompts FILE.")
    if others:
        raise PacelineError(f"{others[0]} does not go with --reward: leave it out.")
    check_numbers(tokens=tokens, seeds=seeds)
    known_or_folder(model)
    user_function(reward)  # what cannot be called is told before anything runs
    task = Rewarded(read_prompts(prompts), model, reward, tokens or TOKENS)
    names = [name for name in contestants or CONTESTANTS if name != BASE]
    racing = [Aligned(name, PLAN) for name in (BASE, *names)]
    if out is None:
        everything = repr((names, model, task.describe(), seeds))
        out = Path("runs") / f"align-{hashlib.sha256(everything.encode()).hexdigest()[:8]}"
    event, limits = Event(task, 0, 0, 1), Limits(workers=1, threads=os.cpu_count() or 1)
    console = Console(stderr=as_json)

    def use(winner: str) -> str:
        for name, earned, strayed in straying(result_of(out), out / PICTURE):
            line = f"{name}: a reward of {earned:.3f}, {strayed:.2f} nats a text from the model as it was"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(f"Drawn: {out / PICTURE}", markup=False, highlight=False, soft_wrap=True)
        facts = result_of(out)["winner"]
        if winner == BASE:
            return f"{_generate(model)} (as it was: nothing did better)"
        if winner.startswith("best_of_n"):
            given = ["paceline", "align", model, "--with", winner, "--reward", reward, "--prompts", str(prompts)]
            return f"{shlex.join(given)} --out none (it chooses among texts and trains nothing)"
        if keep is None:
            return "the same command with --keep DIR, which saves the winner"
        if facts["folder"] is None:
            keep_winner(out, keep, Aligned(winner, PLAN, keeps=True), event, limits)
            console.print(f"Kept: {winner} (seed {facts['seed']}) in {keep}", markup=False, highlight=False)
        return _generate(str(keep))

    run_and_show(
        racing, [event], out, as_json, use, seeds=seeds, confirm=confirm, keep_in=keep, limits=limits,
    )  # fmt: skip


def _generate(model: str) -> str:
    return f"paceline generate {shlex.quote(model)} --prompt 'The '"
