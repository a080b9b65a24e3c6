"""Products of few rows with a large matrix as compiled loops, for processors: imported only where numba is installed.

Decoding reads every weight for a token or a few, so such a product is as fast as memory is read. One thread alone does
not reach that, and a library's general product, made for many rows, may not either. Here each output is one pass over
its row of weights for one row of x, or for four at once, in registers; outputs are shared among the threads. Weights
of 8 bits become numbers in the same pass.
"""

import numba
import numpy as np

from paceline.core.compiled import compiled, use_threads


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


one, four = compiled(_one), compiled(_four)

__all__ = ["four", "one", "use_threads"]
