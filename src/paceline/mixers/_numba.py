"""What compiled loops share, for processors: imported only where numba is installed.

A job is a range of channels of one sequence. The innermost loop runs over channels, so that each instruction takes as
many as the processor's registers hold, and exp is a polynomial, because a call would end that. Jobs run on threads of
their own, which end with the call: nothing is left for a forked process to wait for, and no threading layer is needed.

The first call of a precision compiles for some seconds; the result is kept on disk, beside this file or in the user's
cache, for processes to come.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from inspect import unwrap
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload

LANES = 16
"""Channels of a job are a multiple of this, where there are so many."""
WIDEST = 512
"""Most channels of a job: what is held of them from token to token stays in the nearest cache."""
ALONE = 2**16
"""Steps of the innermost loops below which threads cost more than they save."""
LOG2_E = math.log2(math.e)
TAYLOR = tuple(np.float32(math.log(2) ** i / math.factorial(i)) for i in range(8))
C0, C1, C2, C3, C4, C5, C6, C7 = TAYLOR
LEAST = np.float32(-126.0)
HALF = np.float32(0.5)
BIAS, MANTISSA = np.int32(127), np.int32(23)


def exp2(x):  # type: ignore[no-untyped-def]
    """2^x for x <= 0; `_exp2_for` has the code."""
    return 2.0**x


def _exp2_single(x):  # type: ignore[no-untyped-def]
    """The power of the nearest whole number, written into the exponent's bits, times a polynomial of the rest."""
    x = max(x, LEAST)
    whole = np.floor(x + HALF)
    r = x - whole
    rest = ((((((C7 * r + C6) * r + C5) * r + C4) * r + C3) * r + C2) * r + C1) * r + C0
    return rest * np.int32((np.int32(whole) + BIAS) << MANTISSA).view(np.float32)


def _exp2_double(x):  # type: ignore[no-untyped-def]
    return np.exp2(x)


def _exp2_for(x):  # type: ignore[no-untyped-def]
    return unwrap(_exp2_single) if x == numba.float32 else unwrap(_exp2_double)


def sigmoid(x, one, log2_e):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x)); the constants are given in the precision of x."""
    small = exp2(-abs(x) * log2_e)
    above = one / (one + small)
    return above if x >= 0 else small * above


def _sigmoid_for(x, one, log2_e):  # type: ignore[no-untyped-def]
    return unwrap(sigmoid)


overload(exp2, inline="always")(_exp2_for)
overload(sigmoid, inline="always")(_sigmoid_for)


def compiled(kernel: Callable) -> Callable:
    """The kernel as a loop that lets other threads run."""
    settings: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "reassoc", "nsz"}}
    settings["error_model"] = "numpy"  # a check for division by zero would end the vector
    try:
        return numba.njit(cache=True, **settings)(unwrap(kernel))
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(**settings)(unwrap(kernel))


def jobs(batch: int, width: int, threads: int) -> list[tuple[int, int, int]]:
    """(sequence, first channel, end): as many as share out evenly among the threads, where there are the channels."""
    groups = max(min(threads // math.gcd(threads, batch), -(-width // LANES)), -(-width // WIDEST))
    step = -(-width // (groups * LANES)) * LANES
    return [(row, low, min(low + step, width)) for low in range(0, width, step) for row in range(batch)]


def run(call: Callable[[tuple[int, ...]], None], shares: Sequence[tuple[int, ...]], steps: int) -> None:
    """Every job, on as many threads as torch uses where there are steps enough."""
    count = min(threads(steps), len(shares))
    if count == 1:
        for job in shares:
            call(job)
        return
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(call, shares))


def threads(steps: int) -> int:
    """How many threads so many steps are worth."""
    return 1 if steps < ALONE else torch.get_num_threads()
