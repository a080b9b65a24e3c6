"""What the harness costs over a bare loop: `python benchmarks/harness.py [--repeats N]`, on an idle machine.

The same models on the same batches, trained by a loop of twelve lines and by `paceline.lm.train.train` with progress
and checkpoints, one after the other in one process and one thread; then as cells of a race. Writes
results/bench/harness.json.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
RECIPE = Recipe(tokens=19_200, batch=16, lr=5e-3)
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


def harnessed(name: str, task: Recall, folder: Path | None = None) -> float:
    """Seconds of the same through `train`, with progress and the ledger, and with checkpoints if there is a folder."""
    torch.manual_seed(0)
    model = build(fit([name] * 2, task.vocab_size, PARAMETERS))
    began = time.monotonic()
    train(model, task, RECIPE, 0, folder=folder, progress=lambda *_: None)
    return time.monotonic() - began


def saved(name: str, task: Recall) -> float:
    """The same, with the one checkpoint that a run of less than a minute writes."""
    with tempfile.TemporaryDirectory() as folder:
        return harnessed(name, task, Path(folder))


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
    parser.add_argument("--repeats", type=int, default=120)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    task, rng = Recall(), np.random.default_rng(0)
    found: dict[str, Any] = {"environment": environment(), "recipe": vars(RECIPE), "repeats": repeats, "mixers": {}}
    for name in ("attention", "seqboat"):
        kinds: dict[str, Callable[[str, Recall], float]] = {"bare": bare, "train": harnessed, "saved": saved}
        runs: dict[str, list[float]] = {kind: [] for kind in kinds}
        for repeat in range(repeats + 1):  # in turn first, because machines warm up and tire; the first does not count
            for kind in list(kinds)[:: 1 if repeat % 2 else -1]:
                runs[kind].append(kinds[kind](name, task))
        loops, trained, checked = (np.array(runs[kind][1:]) for kind in ("bare", "train", "saved"))
        ratios = trained / loops
        found["mixers"][name] = {
            "bare_seconds": float(np.median(loops)),
            "train_over_bare": float(np.median(ratios)),
            "interval": np.quantile(np.median(rng.choice(ratios, (2000, repeats)), 1), [0.025, 0.975]).tolist(),
            "checkpoint_seconds": float(np.median(checked - trained)),
            "around_a_cell_seconds": in_a_race(name, task, 8) - float(np.median(checked)),
        }
        print(name, {k: np.round(v, 3).tolist() for k, v in found["mixers"][name].items()})
    write_atomic(STORED, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
