"""How near two computations of the same thing must come: one table for every test and check, and no switches.

Two orders of the same sums differ by rounding. A sum of k terms in precision u is off by about sqrt(k) u of its
terms' size, 2 k u at worst; a layer chains some ten such sums (k up to 1,000 here), and a gradient twice as many. The
bound is therefore 2,000 u for fp64 and fp32 (20 stages x sqrt(1,000) x a factor 3 for cancellation, rounded up), and
16 u for half precision, whose sums are kept in fp32, so that only the stages' results are rounded. A wrong formula
(a key too many, a decay off by one, a missing scale) shows at 1e-3 and above, in fp64 ten orders beyond the bound.

The error is the largest difference of any element, in units of the root mean square of what is expected: one
wrong element is enough, and elements that happen to be near zero are not judged by their own size.
"""

from typing import Any

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Unit roundoff u by dtype."""

TOLERANCE = {
    "float64": 2_000 * ROUNDING["float64"],  # 2.2e-13
    "float32": 2_000 * ROUNDING["float32"],  # 1.2e-4
    "float16": 16 * ROUNDING["float16"],  # 7.8e-3
    "bfloat16": 16 * ROUNDING["bfloat16"],  # 6.3e-2
}
"""Largest `relative_error` of equal computations, by dtype."""


def tolerance(dtype: object) -> float:
    """The bound for a dtype, given as `torch.float32`, `numpy.float32` or by name.

    Raises:
        KeyError: it is not a floating-point dtype of the table.
    """
    name = getattr(dtype, "__name__", None) or str(dtype)
    return TOLERANCE[name.rpartition(".")[2]]


def relative_error(actual: Any, expected: Any, least: float = 0.0) -> float:
    """Largest |actual - expected| over the root mean square of `expected`, for tensors or arrays of one shape.

    0 for empty or identical ones, infinite for a difference from nothing but zeros, NaN where either has a NaN.

    Args:
        actual: one computation.
        expected: the other.
        least: smallest size to judge by, where `expected` may be what is left of larger terms that cancel.
    """
    if tuple(actual.shape) != tuple(expected.shape):
        raise ValueError(f"shapes {tuple(actual.shape)} and {tuple(expected.shape)} cannot be equal")
    if not all(actual.shape):
        return 0.0
    peak = abs(expected).max().item()
    typical = peak * ((expected / peak) ** 2).mean().item() ** 0.5 if peak else 0.0  # squares cannot overflow
    size = max(typical, least)
    difference = abs(actual - expected).max().item()
    if size:
        return difference / size
    return difference and difference * float("inf")


def close(actual: Any, expected: Any, dtype: object, least: float = 0.0) -> bool:
    """Whether two computations in `dtype` agree within the table; see `relative_error`."""
    return relative_error(actual, expected, least) <= tolerance(dtype)
