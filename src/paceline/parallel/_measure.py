"""The rates of `Machine` on this one: processes linked by gloo, one thread each, all at work at once.

The rate of products is that of a training step of LASP-2 without messages, so that its element-wise work is in it.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import distributed

from paceline.parallel._chunks import CHUNK
from paceline.parallel._link import Link
from paceline.parallel._plan import BACKWARD, Machine
from paceline.parallel._ranks import run_ranks
from paceline.parallel.lasp2 import LASP2

HEADS, TOKENS, WIDTH = 4, 2_048, 64
LARGE = 1 << 22
"""Numbers of a large message."""


def measure(processes: int = 2, patience: float = 60.0) -> Machine:
    """Rates of the slowest of some processes on this machine; a few seconds.

    Args:
        processes: two or more.
        patience: seconds to wait for another.

    Raises:
        PacelineError: a process ended.
    """
    found = run_ranks(_rates, processes, patience)
    slowest = {name: max(facts[name] for facts in found) for name in found[0]}
    hop = min(slowest["gather"] / (processes - 1), slowest["message"])
    bandwidth = 4 * LARGE / max(slowest["large"] - slowest["message"], 1e-9)
    return Machine(1 / slowest["products"], bandwidth, slowest["message"], hop)


def _rates(link: Link) -> dict[str, float]:
    """Seconds of messages, and of one operation within products."""
    alone = Link()
    alone.rank, alone.size = 0, 1
    layer, parts = LASP2(alone), [torch.randn(1, HEADS, TOKENS, WIDTH, requires_grad=True) for _ in range(3)]
    operations = (1 + BACKWARD) * 4.0 * HEADS * TOKENS * WIDTH * (WIDTH + CHUNK)
    small, large = torch.zeros(1), torch.zeros(LARGE)
    found = {
        "message": _seconds(lambda: link.turn(small).wait(), 30),
        "gather": _seconds(lambda: link.gather(small).wait(), 30),
        "large": _seconds(lambda: link.turn(large).wait(), 5),
        "products": _seconds(lambda: layer(*parts).sum().backward(), 5) / operations,
    }
    distributed.barrier()
    return found


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """The median, a warm-up apart."""
    took = []
    for repeat in range(repeats + 3):
        began = time.perf_counter()
        work()
        if repeat >= 3:
            took.append(time.perf_counter() - began)
    return median(took)
