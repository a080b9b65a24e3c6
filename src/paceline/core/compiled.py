"""What loops compiled by numba share on processors: imported only where numba is installed."""

import hashlib
import os
from collections.abc import Callable
from functools import cache
from inspect import unwrap
from pathlib import Path
from typing import Any

import numba

from paceline.core.discovery import PACKAGE

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see cli/__init__.py; numba's threads start with the first loop
CONFIG: Any = numba.config
if CONFIG.THREADING_LAYER == "default":  # the one that comes with numba itself ends a process that uses threads
    CONFIG.THREADING_LAYER = "threadsafe"


def compiled(kernel: Callable, parallel: bool = True) -> Any:
    """The kernel as a loop, kept on disk where that can be."""
    settings: dict[str, Any] = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}
    before, CONFIG.CACHE_DIR = CONFIG.CACHE_DIR, str(_kept())
    try:
        return numba.njit(cache=True, parallel=parallel, **settings)(unwrap(kernel))
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(parallel=parallel, **settings)(unwrap(kernel))
    finally:
        CONFIG.CACHE_DIR = before


@cache
def _kept() -> Path:
    """Where loops are kept, if that can be written: a folder for these very sources, for numba itself would go on with
    a loop while its own file is unchanged, whatever it calls."""
    sources = sorted(PACKAGE.rglob("*_numba.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return PACKAGE / "__pycache__" / f"loops-{digest[:12]}"


def use_threads(count: int) -> None:
    """How many threads the next loops take."""
    numba.set_num_threads(min(count, CONFIG.NUMBA_NUM_THREADS))
