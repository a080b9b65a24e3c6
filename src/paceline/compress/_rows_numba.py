"""Products of few rows with a large matrix as compiled loops, for processors: imported only where numba is installed.

Decoding reads every weight for a token or a few, so such a product is as fast as memory is read. One thread alone does
not reach that, and a library's general product, made for many rows, may not either. Here each output is one pass over
its row of weights for one row of x, or for four at once, in registers; outputs are shared among the threads. Weights
of 8 bits become numbers in the same pass.
"""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import numba
import numpy as np

CONFIG: Any = numba.config
if CONFIG.THREADING_LAYER == "default":  # the one that comes with numba itself ends a process that uses threads
    CONFIG.THREADING_LAYER = "threadsafe"


def _one(x, weights, scales, out):  # type: ignore[no-untyped-def]
    for o in numba.prange(weights.shape[0]):
        total = np.float32(0)
        for i in range(weights.shape[1]):
            total += x[0, i] * np.float32(weights[o, i])
        out[0, o] = total * scales[o]


def _four(x, weights, scales, out):  # type: ignore[no-untyped-def]
    """Rows of x come in fours."""
    for o in numba.prange(weights.shape[0]):
        for r in range(0, x.shape[0], 4):
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(weights.shape[1]):
                w = np.float32(weights[o, i])
                a += x[r, i] * w
                b += x[r + 1, i] * w
                c += x[r + 2, i] * w
                d += x[r + 3, i] * w
            out[r, o], out[r + 1, o] = a * scales[o], b * scales[o]
            out[r + 2, o], out[r + 3, o] = c * scales[o], d * scales[o]


def compiled(kernel: Callable, parallel: bool = True) -> Any:
    """The kernel as a loop, kept on disk where that can be."""
    settings: dict[str, Any] = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, parallel=parallel, **settings)(unwrap(kernel))
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(parallel=parallel, **settings)(unwrap(kernel))


one, four = compiled(_one), compiled(_four)


def use_threads(count: int) -> None:
    """How many threads the next products take."""
    numba.set_num_threads(min(count, CONFIG.NUMBA_NUM_THREADS))
