"""What pairing and matching a batch costs beside torchcfm: `python benchmarks/flows.py [--quick]`.

In one process, both in turn in every repeat; medians, one thread: OT-CFM's pairs, times, points and velocities of a
batch, ours against `torchcfm.ExactOptimalTransportConditionalFlowMatcher` (whose plan is POT's), in the plane and in
32 x 32 numbers; and whether both pair alike. Needs torchcfm and POT: pip install --no-deps torchcfm==1.0.7 pot.
Written to results/bench/flows.json; with `--quick` only shown. A minute on two cores.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from timing import timed

from paceline.core.files import write_json
from paceline.flows.ot_cfm import OTCFM
from paceline.race.result import environment

STORED = Path(__file__).parents[1] / "results" / "bench" / "flows.json"


def matching(batch: int, shape: tuple[int, ...], repeats: int) -> dict[str, Any]:
    from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

    draws = torch.Generator().manual_seed(0)
    x0, x1 = (torch.randn(batch, *shape, generator=draws) for _ in range(2))
    ours, theirs = OTCFM(sigma=0.1), ExactOptimalTransportConditionalFlowMatcher(sigma=0.1)
    plan = theirs.ot_sampler.get_map(x0, x1)
    same = torch.equal(ours.pair(x0, x1)[1], x1[torch.from_numpy(np.argmax(plan, 1))])
    took = timed(
        {
            "ours": lambda: ours.matching(*ours.pair(x0, x1)),
            "torchcfm": lambda: theirs.sample_location_and_conditional_flow(x0, x1),
        },
        repeats,
    )
    return {"batch": batch, "shape": list(shape), "same pairs": same, **took, "ratio": took["torchcfm"] / took["ours"]}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--quick", action="store_true")
    quick = arguments.parse_args().quick
    torch.set_num_threads(1)
    sizes, repeats = ((64, 256), 5) if quick else ((64, 128, 256, 512, 1_024), 15)
    found = {"matching": [matching(n, shape, repeats) for n in sizes for shape in ((2,), (32, 32))]}
    Console().print(found)
    if not quick:
        write_json(STORED, {"environment": environment(), **found})


if __name__ == "__main__":
    main()
