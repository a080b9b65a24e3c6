"""What a divided sequence costs, and how far predictions are off: `python benchmarks/parallel.py [--quick]`.

Two and four processes of this machine, linked by gloo, one thread each; training steps of one layer's attention, every
method in turn in every repeat; medians of the slowest process. Ratios in one process group:
- lasp2 against lasp, on the same work, and with messages made slow by a wait before each one (as of a network);
- gather_attention against ring, which do the same work (torch's own ring, `context_parallel`, is not for CPUs).
Measured seconds stand beside those of `paceline plan`. More processes than cores show messages at their dearest.
Written to results/bench/parallel.json; with `--quick` only shown. About two minutes on two cores.
"""

import argparse
import importlib
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import distributed

from paceline.core.files import write_json
from paceline.parallel._contract import SequenceParallel, Shape
from paceline.parallel._link import Link, Pending
from paceline.parallel._measure import measure
from paceline.parallel._plan import METHODS, predict
from paceline.parallel._ranks import run_ranks
from paceline.parallel.gather_attention import GatherAttention
from paceline.parallel.lasp import LASP
from paceline.parallel.lasp2 import LASP2
from paceline.parallel.ring import Ring
from paceline.race.result import environment

STORED = Path(__file__).parents[1] / "results" / "bench" / "parallel.json"
WAYS: dict[str, type[SequenceParallel]] = {
    "lasp2": LASP2, "lasp": LASP, "ring": Ring, "gather_attention": GatherAttention
}  # fmt: skip
HEADS, WIDTH = 4, 64
NETWORK = 0.02
"""Seconds that a message is made to take, far above what gloo takes here."""


class Slow(Link):
    """A link whose messages take a while more to arrive."""

    def gather(self, x: torch.Tensor) -> Pending:
        """See `Link.gather`."""
        return _later(super().gather(x))

    def receive(self, like: torch.Tensor, source: int) -> Pending:
        """See `Link.receive`."""
        return _later(super().receive(like, source))


class _Late:
    """Work that is done `NETWORK` after the sender was."""

    def __init__(self, work: Any) -> None:
        self.work = work

    def wait(self, limit: Any) -> None:
        self.work.wait(limit)
        time.sleep(NETWORK)


def _later(pending: Pending) -> Pending:
    pending.works = [_Late(work) for work in pending.works]
    return pending


def steps(link: Link, length: int, repeats: int) -> dict[str, float]:
    """Median seconds of a training step, by method."""
    ways = {name: way(link) for name, way in WAYS.items()}
    ways |= {f"{name}, slow messages": WAYS[name](Slow(link.group, link.patience)) for name in ("lasp2", "lasp")}
    parts = [torch.randn(1, HEADS, length // link.size, WIDTH, requires_grad=True) for _ in range(3)]
    runs = {name: lambda way=way: way(*parts) for name, way in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            distributed.barrier()
            began = time.perf_counter()
            run().sum().backward()
            if repeat:
                found[name].append(time.perf_counter() - began)
    return {name: median(took) for name, took in found.items()}


def side_by_side(processes: int, length: int, repeats: int) -> dict[str, Any]:
    """Measured and predicted seconds."""
    found = run_ranks(importlib.import_module("parallel").steps, processes, length=length, repeats=repeats)
    seconds = {name: max(facts[name] for facts in found) for name in found[0]}
    machine = measure(processes)
    shape = Shape(1, HEADS, length, WIDTH, WIDTH, processes)
    rest = 3 * 24.0 * (length / processes) * (HEADS * WIDTH) ** 2 / machine.flops  # not run here
    predicted = {method: predict(method, shape, 1, machine).seconds - rest for method in METHODS}
    ratios = {
        "lasp2 / lasp": seconds["lasp2"] / seconds["lasp"],
        "lasp2 / lasp, slow messages": seconds["lasp2, slow messages"] / seconds["lasp, slow messages"],
        "lasp2 / ring": seconds["lasp2"] / seconds["ring"],
        "gather / ring": seconds["gather_attention"] / seconds["ring"],
    }
    return {
        "processes": processes, "tokens": length, "seconds": seconds, "ratios": ratios, "machine": asdict(machine),
        "predicted": predicted, "predicted / measured": {m: predicted[m] / seconds[m] for m in METHODS},
    }  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description="What a divided sequence costs, method beside method.")
    arguments.add_argument("--quick", action="store_true")
    quick = arguments.parse_args().quick
    lengths, repeats = ((2_048,), 3) if quick else ((2_048, 8_192), 9)
    found = [side_by_side(processes, length, repeats) for processes in (2, 4) for length in lengths]
    Console().print(found)
    if not quick:
        write_json(STORED, {"environment": environment(), "steps": found})


if __name__ == "__main__":
    main()
