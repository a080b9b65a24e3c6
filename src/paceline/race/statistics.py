"""Statistics that can decide, or say that nothing is decided. Seeds are the replicates, paired across contestants."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ALPHA = 0.05
EXACT, RANDOM_FLIPS = 16, 100_000


@dataclass(frozen=True)
class Comparison:
    """Contestant a against b on the seeds that both finished."""

    a: str
    b: str
    difference: float
    """Mean of a minus b, in the metric's unit."""
    interval: tuple[float, float]
    """95 % t interval of that mean."""
    p: float
    """Two-sided sign-flip test, exact up to 16 seeds."""
    p_holm: float
    """p adjusted for all pairs of the event."""
    seeds: int

    @property
    def resolved(self) -> bool:
        """Whether chance is ruled out at level ALPHA over all pairs together."""
        return self.p_holm <= ALPHA


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % t interval of the mean. One value, or equal values, give a point."""
    data = np.asarray(values, dtype=float)
    error = stats.sem(data) if np.ptp(data) > 0 else 0.0  # also 0 where differences are too small to square
    if error == 0:
        return float(data.mean()), float(data.mean())
    low, high = stats.t.interval(1 - ALPHA, len(data) - 1, data.mean(), error)
    return float(low), float(high)


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided p of "these paired differences are symmetric around 0", never below 2^(1 - n) for n of them.

    Exact up to 16 differences, by 100,000 random flips beyond. Not scipy's permutation_test: it compares with a
    tolerance relative to the observed mean, which loses ties where that mean is near 0.
    """
    data = np.asarray(differences, dtype=float)
    count = len(data)
    if count <= EXACT:
        flips = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        flips = np.random.default_rng(0).choice([-1, 1], size=(RANDOM_FLIPS, count))
        flips[0] = 1  # the observed one counts, so that p is never 0
    slack = 1e-12 * np.abs(data).sum()
    return float(np.mean(np.abs(flips @ data) >= np.abs(data.sum()) - slack))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: reject those at or below the level, and no false one with that probability."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def seeds_needed(pairs: int, alpha: float = ALPHA) -> int:
    """Fewest seeds with which a sign-flip test under Holm over `pairs` can resolve anything: 6 for one, 8 for six."""
    return next(n for n in itertools.count(2) if pairs * 2.0 ** (1 - n) <= alpha)


def compare(scores: Mapping[str, Mapping[int, float]]) -> list[Comparison]:
    """All pairs of contestants, paired by seed; Holm over all of them.

    Args:
        scores: contestant -> seed -> score. Pairs that share fewer than two seeds are left out.
    """
    pairs: list[tuple[str, str, list[float]]] = []
    for a, b in itertools.combinations(scores, 2):
        shared = sorted(scores[a].keys() & scores[b].keys())
        if len(shared) >= 2:
            pairs.append((a, b, [scores[a][s] - scores[b][s] for s in shared]))
    raw = [sign_flip(d) for _, _, d in pairs]
    return [
        Comparison(a, b, float(np.mean(d)), mean_interval(d), p, adjusted, len(d))
        for (a, b, d), p, adjusted in zip(pairs, raw, holm(raw), strict=True)
    ]
