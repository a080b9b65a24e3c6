"""How the benchmarks take their times: rivals in turn, medians."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import torch


def seconds(run: Callable[[], object], calls: int = 1) -> float:
    """Of one call, the mean of `calls`."""
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - began) / calls


def in_turn(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of what each run says, a warm-up apart.

    A machine whose speed changes is the same for all; and each repeat begins with another one, for what ran before
    leaves memory behind, warm or torn.
    """
    found: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        first = repeat % len(runs)
        for name in (*runs, *runs)[first : first + len(runs)]:
            said = runs[name]()
            if repeat:
                found[name].append(said)
    return {name: median(values) for name, values in found.items()}


def timed(runs: Mapping[str, Callable[[], object]], repeats: int, calls: int = 1) -> dict[str, float]:
    """Median seconds of a call of each."""
    return in_turn({name: partial(seconds, run, calls) for name, run in runs.items()}, repeats)


def read_rate() -> float:
    """Bytes a second of summing a large vector, the best of ten."""
    vector = torch.randn(2**26)
    return vector.nbytes / min(seconds(vector.sum) for _ in range(10))
