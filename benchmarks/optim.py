"""What an optimizer's step costs beside the libraries: `python benchmarks/optim.py [--quick]`, with the extra `bench`.

In one process, every rival in turn in every repeat, on the same parameters and gradients, float32, two threads; seconds
are means over whole periods of refreshing a basis:
- soap: `pytorch_optimizer.SOAP`, every 10 steps and every 100;
- muon: `torch.optim.Muon`, whose iteration runs in bfloat16;
- adamw: `torch.optim.AdamW` as it comes, one operation at a time.
The parameters are one layer of a decoder, its matrices alone, of 256 features and, where that takes no minutes, of
576. Also told: how far apart ours and the library's stand after the same steps, as a share of the way they went.
Written to results/bench/optim.json; with `--quick` only shown. Five minutes on two cores.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_optimizer import SOAP as LibrarySOAP
from rich.console import Console
from timing import in_turn

from paceline.core.files import write_json
from paceline.optim.adamw import AdamW
from paceline.optim.muon import Muon
from paceline.optim.soap import SOAP
from paceline.race.result import environment

STORED = Path(__file__).parents[1] / "results" / "bench" / "optim.json"
RATE = 1e-3
WIDTHS = (256, 576)

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
RIVALS: dict[str, tuple[Make, Make, int, tuple[int, ...]]] = {
    "soap(every=10)": (
        lambda w: SOAP(w, RATE, weight_decay=0.0, every=10),
        lambda w: LibrarySOAP(w, RATE, weight_decay=0.0, precondition_frequency=10),
        10,
        WIDTHS,
    ),
    "soap(every=100)": (
        lambda w: SOAP(w, RATE, weight_decay=0.0, every=100),
        lambda w: LibrarySOAP(w, RATE, weight_decay=0.0, precondition_frequency=100),
        100,
        WIDTHS[:1],
    ),
    "muon": (
        lambda w: Muon(w, RATE, weight_decay=0.0),
        lambda w: torch.optim.Muon(w, RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        3,
        WIDTHS[:1],  # torch's takes seconds a step where bfloat16 is emulated
    ),
    "adamw": (
        lambda w: AdamW(w, RATE, weight_decay=0.0),
        lambda w: torch.optim.AdamW(w, RATE, (0.9, 0.98), weight_decay=0.0),
        10,
        WIDTHS,
    ),
}
"""Ours, the library's, steps of a period, and features of the layers."""


def layer(width: int) -> list[torch.nn.Parameter]:
    """An attention's four matrices and a gated feed-forward's three."""
    shapes = [(width, width)] * 4 + [(8 * width // 3, width)] * 2 + [(width, 8 * width // 3)]
    draws = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=draws) * width**-0.5) for shape in shapes]


def period(
    weights: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: int, draws: torch.Generator
) -> float:
    """Seconds of a step, the mean of `steps`; gradients are drawn before the clock starts."""
    took = 0.0
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=draws)
        began = time.perf_counter()
        optimizer.step()
        took += time.perf_counter() - began
    return took / steps


def measure(name: str, width: int, repeats: int) -> dict[str, Any]:
    ours, theirs, steps, _ = RIVALS[name]
    runs = {"ours": layer(width), "library": layer(width)}
    optimizers = {"ours": ours(runs["ours"]), "library": theirs(runs["library"])}
    began = [weight.detach().clone() for weight in runs["ours"]]
    rivals = {
        who: partial(period, weights, optimizers[who], steps, torch.Generator().manual_seed(1))  # the same gradients
        for who, weights in runs.items()
    }
    for run in rivals.values():  # builds the states
        run()
    apart = [(a - b).norm() / (a - c).norm() for a, b, c in zip(*runs.values(), began, strict=True)]
    took = in_turn(rivals, repeats)
    return {
        "optimizer": name, "width": width, **took, "library / ours": took["library"] / took["ours"],
        "apart": torch.stack(apart).mean().item(),
    }  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--quick", action="store_true")
    quick = arguments.parse_args().quick
    torch.set_num_threads(2)
    found = []
    for name, (*_, widths) in RIVALS.items():
        for width in (128,) if quick else widths:
            found.append(measure(name, width, 2 if quick else 5))
            Console().print(found[-1])
    if not quick:
        write_json(STORED, {"environment": environment(), "steps": found})


if __name__ == "__main__":
    main()
