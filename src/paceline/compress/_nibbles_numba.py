"""Products of few rows with a matrix of 4-bit codes, as compiled loops: imported only where numba is installed.

A byte holds the code of input j in its low bits and that of input j + i / 2 in its high ones, each 8 too large:

    y_o = s_o (sum_j x_j low_oj + x_(j + i/2) high_oj - 8 sum_j x_j)

Codes are 32-bit numbers on their way to floats: without the casts they would be 64 bits wide, at half the speed.
"""

import numba
import numpy as np

from paceline.core.compiled import compiled


def _one(x, sums, packed, scales, out):  # type: ignore[no-untyped-def]
    half = packed.shape[1]
    for o in numba.prange(packed.shape[0]):
        low, high = np.float32(0), np.float32(0)
        for j in range(half):
            byte = np.int32(packed[o, j])
            low += x[0, j] * np.float32(np.int32(byte & np.int32(15)))
            high += x[0, half + j] * np.float32(np.int32(byte >> np.int32(4)))
        out[0, o] = (low + high - np.float32(8) * sums[0]) * scales[o]


def _four(x, sums, packed, scales, out):  # type: ignore[no-untyped-def]
    """Rows of x come in fours."""
    half, eight = packed.shape[1], np.float32(8)
    for o in numba.prange(packed.shape[0]):
        for r in range(0, x.shape[0], 4):
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for j in range(half):
                byte = np.int32(packed[o, j])
                low, high = np.float32(np.int32(byte & np.int32(15))), np.float32(np.int32(byte >> np.int32(4)))
                a += x[r, j] * low + x[r, half + j] * high
                b += x[r + 1, j] * low + x[r + 1, half + j] * high
                c += x[r + 2, j] * low + x[r + 2, half + j] * high
                d += x[r + 3, j] * low + x[r + 3, half + j] * high
            out[r, o], out[r + 1, o] = (a - eight * sums[r]) * scales[o], (b - eight * sums[r + 1]) * scales[o]
            out[r + 2, o], out[r + 3, o] = (c - eight * sums[r + 2]) * scales[o], (d - eight * sums[r + 3]) * scales[o]


one, four = compiled(_one), compiled(_four)
