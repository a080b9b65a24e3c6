"""`paceline train`: one model on text, fresh or going on with a saved one, in bytes or in another model's tokens."""

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from paceline.cli.events import corpus
from paceline.cli.numbers import check_numbers
from paceline.core.errors import PacelineError
from paceline.core.files import write_json
from paceline.core.lock import NAME, hold
from paceline.core.seeds import derive
from paceline.data._contract import Task
from paceline.data.text import Text
from paceline.data.token_text import TokenText, vocabulary
from paceline.lm.checkpoint import load_model, save_model
from paceline.lm.config import DEEPEST, Config, build, check_length, fit
from paceline.lm.denoising import Denoising, objective_of
from paceline.lm.distributed import Replicated, World, join
from paceline.lm.evaluate import evaluate
from paceline.lm.siblings import copy_tokenizer, known_or_folder
from paceline.lm.train import Recipe, train

SEQUENCE = "sequence"
"""Of --parallel: each process has a part of every sequence."""
LAYERS, BYTES, TOKENS = 2, 360_000, 7_000_000
"""Layers, and parameters of a model that reads bytes or tokens, where none are asked for."""


def run(
    mixer: str,
    out: Path,
    text: Sequence[str],
    field: str | None,
    tokens: int,
    params: int | None,
    layers: int | None,
    length: int,
    batch: int,
    lr: float,
    feed_forward: str,
    seed: int,
    resume: bool,
    parallel: str,
    tokenizer: str | None = None,
    optimizer: str = "adamw",
    objective: str | None = None,
) -> None:
    """Train, measure on the held-out text, save, and print the command that uses the model.

    Under torchrun, every process trains, and the first one alone does everything else.
    """
    if parallel not in ("ddp", "fsdp", SEQUENCE):
        raise PacelineError(f"--parallel must be ddp, fsdp or sequence, not {parallel!r}.")
    with join("ddp" if parallel == SEQUENCE else parallel) as met, ExitStack() as held:
        world = met if parallel != SEQUENCE else _lengthwise(met, objective)
        console = Console(quiet=not world.first)
        check_numbers(tokens=tokens, params=params, layers=layers, length=length, batch=batch)
        if layers is not None and layers > DEEPEST:
            raise PacelineError(f"--layers must be at most {DEEPEST:,}, not {layers:,}.")
        recipe = Recipe(tokens=tokens, batch=batch, lr=lr, optimizer=optimizer)
        recipe.steps(length)
        world.fewest(batch)
        start = load_model(Path(mixer)) if os.path.isdir(mixer) else None
        if start and (params or layers):
            raise PacelineError(f"{mixer} has its size: leave --params and --layers out to go on with it.")
        under = None if objective is None else objective_of(objective)
        if under is not None and (start or tokenizer is not None):
            raise PacelineError("--objective trains fresh models of bytes: leave --tokenizer and the folder out.")
        reads = _reads(tokenizer, None if start is None else Path(mixer), start and start[1].task)
        size, named, usual = (256, Text.name, BYTES) if reads is None else (vocabulary(reads), TokenText.name, TOKENS)
        if under is not None:
            size, named = size + under.extra_tokens, Denoising.name if under.extra_tokens else named
        plan = [mixer] * (layers or LAYERS)
        config = start[1] if start else fit(plan, size, params or usual, named, feed_forward=feed_forward)
        check_length(config, length)
        if parallel == SEQUENCE:
            _check_divides(config, length, world)
            console.print(
                f"Each of {world.size} processes holds {length // world.size:,} of the {length:,} tokens of a window; "
                f"paceline plan --length {length} --devices {world.size} tells what the messages should cost.",
                highlight=False, soft_wrap=True,
            )  # fmt: skip

        def prepare() -> str:
            if out.exists() and not out.is_dir():
                raise PacelineError(f"--out {out} is a file: give a folder.")
            _refuse(out, resume)
            held.enter_context(hold(out, "run"))
            _refuse(out, resume)  # again: another run may have ended there a moment ago
            return str(corpus(text, field, out))

        place = world.tell(prepare)
        task: Task = world.together(lambda: Text(place, length) if reads is None else TokenText(place, reads, length))
        task = task if under is None else Denoising(task, under)
        torch.manual_seed(derive(seed, "init", mixer))
        model = start[0].train() if start else build(config)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed} of {task.total} steps"),
            TimeRemainingColumn(),
        )
        checkpoints = out / "checkpoints"
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
            line = bars.add_task("train", total=recipe.steps(length))

            def show(done: int, of: int, loss: float) -> None:
                bars.update(line, completed=done, description=f"train, {loss:.3f} {task.loss_unit}")
                if not console.is_terminal and done == of:
                    console.print(f"{done} steps, {loss:.3f} {task.loss_unit}", highlight=False)

            try:
                trained = train(
                    model, task, recipe, seed, folder=checkpoints, save_seconds=20.0, progress=show, world=world
                )
            except KeyboardInterrupt:
                console.print(f"Stopped. Give --resume to continue from the last checkpoint in {out}.", highlight=False)
                raise typer.Exit(130) from None
        if not world.first:
            return
        evaluation = evaluate(model, task)
        save_model(model, config, out)
        if reads is not None:
            copy_tokenizer(reads, out)
        write_json(
            out / "training.json",
            {
                "curve": trained.curve,
                "score": evaluation.score,
                "meters": evaluation.meters,
                "ledger": trained.ledger.to_dict(),
                "objective": objective,
            },
        )
        shutil.rmtree(checkpoints)
        ledger = trained.ledger
        meters = "".join(f", {name} {value:.2f}" for name, value in evaluation.meters.items())
        console.print(
            f"{mixer}: {evaluation.score:.3f} {task.metric} on held-out text, {ledger.parameters:,} parameters, "
            f"{ledger.tokens:,} tokens in {ledger.seconds:.0f} s{meters}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        use = (
            f"generate {out} --prompt 'The '" if named != Denoising.name else f"infill {out} --left 'The ' --right '.'"
        )
        console.print(f"Use it: paceline {use}", markup=False, highlight=False, soft_wrap=True)


def _lengthwise(met: World, objective: str | None) -> World:
    """The same processes, which divide sequences instead of batches.

    Raises:
        PacelineError: this is the only process, or more than the next token is asked for.
    """
    from paceline.lm.sequence import Lengthwise

    if not isinstance(met, Replicated):
        raise PacelineError(
            "--parallel sequence is for several processes: start them by `torchrun --nproc-per-node 2 -m paceline "
            "train ...`, or leave it out."
        )
    if objective is not None:
        raise PacelineError("--parallel sequence divides what predicts the next token alone: leave --objective out.")
    return Lengthwise(met.rank, met.size, met.device)


def _check_divides(config: Config, length: int, world: World) -> None:
    """Refuse a length that does not divide, or a model that cannot read a part, before anything is written."""
    from paceline.lm.sequence import Lengthwise, shard_sequence

    assert isinstance(world, Lengthwise)
    with torch.device("meta"):
        world.link.part(torch.empty(1, length))
        shard_sequence(build(config), world.link)


def _reads(tokenizer: str | None, start: Path | None, task: str | None) -> Path | None:
    """The folder of the tokenizer that the model reads with, or None where it reads bytes.

    Raises:
        PacelineError: a model to go on with that was not trained on text, or with other tokens than are asked for.
    """
    if start is None:
        return None if tokenizer is None else known_or_folder(tokenizer)
    if task not in (Text.name, TokenText.name):
        raise PacelineError(f"{start} was trained on {task}, not on text: there is nothing to go on with.")
    if tokenizer is not None:
        raise PacelineError(f"{start} has tokens of its own: leave --tokenizer out to go on with it.")
    return start if task == TokenText.name else None


def _refuse(out: Path, resume: bool) -> None:
    """Refuse a folder that holds something else, or what is not to be continued."""
    inside = {path.name for path in out.iterdir()} - {"corpus", NAME} if out.is_dir() else set()
    if inside and not resume:
        raise PacelineError(f"{out} is not empty: give --resume to continue the run in it, or another --out.")
    finished = "training.json" in inside  # written last; checkpoints beside it were being removed by a killed run
    if finished or (inside and "checkpoints" not in inside):
        what = "a finished model" if finished else "no run of `paceline train`"
        raise PacelineError(f"{out} holds {what}, so there is nothing to resume: choose another --out.")
