"""What the harness costs over a bare loop: `python benchmarks/harness.py [--repeats N]`, on an idle machine.

The same models on the same batches, trained by a loop of twelve lines and by `paceline.lm.train.train` with progress
and checkpoints, one after the other in one process and one thread; then as cells of a race. Writes
results/bench/harness.json.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from paceline.core.files import write_atomic
from paceline.data.recall import Recall
from paceline.lm.config import build, fit
from paceline.lm.train import Recipe, make_optimizer, train
from paceline.race.cell import Cell
from paceline.race.contestant import Event, Job, Model
from paceline.race.pool import Limits, run_cells
from paceline.race.result import environment

STORED = Path(__file__).parents[1] / "results" / "bench" / "harness.json"
RECIPE = Recipe(tokens=76_800, batch=16, lr=5e-3)
PARAMETERS = 30_000


def bare(name: str, task: Recall) -> float:
    """Seconds of a loop that does the arithmetic and nothing else."""
    torch.manual_seed(0)
    model = build(fit([name] * 2, task.vocab_size, PARAMETERS))
    optimizer = make_optimizer(model, RECIPE)
    steps = RECIPE.steps(task.length)
    began = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * RECIPE.rate(step, steps)
        batch = task.batch(RECIPE.batch, 0, step)
        loss = functional.cross_entropy(model.logits(batch.ids).flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), RECIPE.clip)
        optimizer.step()
        loss.item()
    return time.monotonic() - began


def harnessed(name: str, task: Recall) -> float:
    """Seconds of the same through `train`, with progress, the ledger and checkpoints."""
    torch.manual_seed(0)
    model = build(fit([name] * 2, task.vocab_size, PARAMETERS))
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        train(model, task, RECIPE, 0, folder=Path(folder), progress=lambda *_: None)
        return time.monotonic() - began


def in_a_race(name: str, task: Recall, cells: int) -> float:
    """Seconds a cell, one at a time, with everything around it: process, start, evaluation, record, model."""
    with tempfile.TemporaryDirectory() as root:
        event = Event(task, RECIPE.tokens, PARAMETERS, RECIPE.batch)

        def cell(seed: int) -> Cell:
            place = Path(root, str(seed))
            return Cell("race", Model(name), Job(event, seed, RECIPE.lr, place / "run", place), place / "record.json")

        limits = Limits(workers=1)
        list(run_cells([cell(cells)], limits, lambda *_: None))  # starts the forkserver, once a race
        began = time.monotonic()
        list(run_cells([cell(seed) for seed in range(cells)], limits, lambda *_: None))
        return (time.monotonic() - began) / cells


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    task = Recall()
    found: dict[str, Any] = {"environment": environment(), "recipe": vars(RECIPE), "repeats": repeats, "mixers": {}}
    for name in ("attention", "seqboat"):
        bare(name, task), harnessed(name, task)
        runs: dict[str, list[float]] = {"bare": [], "train": []}
        for repeat in range(2 * repeats):  # in turn first, because machines warm up and tire
            order = (("bare", bare), ("train", harnessed))[:: 1 if repeat % 2 else -1]
            for kind, run in order:
                runs[kind].append(run(name, task))
        loop, ratio = min(runs["bare"]), min(runs["train"]) / min(runs["bare"])  # the rest is other people's work
        cell = in_a_race(name, task, repeats)
        found["mixers"][name] = {"bare_seconds": loop, "train_over_bare": ratio, "cell_seconds": cell}
        print(f"{name}: bare loop {loop:.2f} s, train {100 * (ratio - 1):+.1f} %, a race's cell {cell:.2f} s")
    write_atomic(STORED, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
