"""What loops compiled by numba share on processors: imported only where numba is installed."""

import os
from collections.abc import Callable
from inspect import unwrap
from typing import Any

import numba

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see cli/__init__.py; numba's threads start with the first loop
CONFIG: Any = numba.config
if CONFIG.THREADING_LAYER == "default":  # the one that comes with numba itself ends a process that uses threads
    CONFIG.THREADING_LAYER = "threadsafe"


def compiled(kernel: Callable, parallel: bool = True) -> Any:
    """The kernel as a loop, kept on disk where that can be."""
    settings: dict[str, Any] = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, parallel=parallel, **settings)(unwrap(kernel))
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(parallel=parallel, **settings)(unwrap(kernel))


def use_threads(count: int) -> None:
    """How many threads the next loops take."""
    numba.set_num_threads(min(count, CONFIG.NUMBA_NUM_THREADS))
