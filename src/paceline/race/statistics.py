"""Statistics that can decide, or say that nothing is decided. Seeds are the replicates, paired across contestants."""

import bisect
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from paceline.core.errors import PacelineError

ALPHA = 0.05
EXACT, RANDOM_FLIPS = 16, 100_000
RESAMPLES = 2000
DOUBT = 1.4
"""Factor on the variance between seeds in `hierarchical_interval`; without it 6 seeds can cover 92 %."""
MOST_SEEDS = 1000
NEAR = 0.05
"""Share of the way from floor to ceiling that counts as being at one of them."""


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


def paired_t(differences: Sequence[float]) -> float:
    """Two-sided p of the paired t test that the mean difference is 0.

    Fewer than two differences, or all of them 0, give 1. Equal differences have no spread, and t would claim p = 0;
    they give what their signs alone can say, 2^(1 - n), as `sign_flip` does.
    """
    data = np.asarray(differences, dtype=float)
    return min(1.0, 2 * min(_above_zero(data), _above_zero(-data)))


def tost(differences: Sequence[float], margin: float) -> float:
    """p of "the mean is beyond +-margin", by two one-sided paired t tests: at or below ALPHA, the two are equivalent.

    Equal differences give 2^-n within the margin, and 1 at or beyond it; fewer than two give 1.

    Args:
        differences: one for each seed, in the metric's unit.
        margin: the largest mean difference that does not matter, in the same unit.

    Raises:
        PacelineError: a margin that is not above 0.
    """
    if not margin > 0:
        raise PacelineError(f"An equivalence test needs a margin above 0, not {margin:g}.")
    data = np.asarray(differences, dtype=float)
    return max(_above_zero(data + margin), _above_zero(margin - data))


def _above_zero(data: NDArray[np.float64]) -> float:
    """One-sided p of the t test that the mean is not above 0."""
    scale = np.abs(data).max(initial=0.0)
    if len(data) < 2 or scale == 0:
        return 1.0
    data = data / scale  # so that tiny differences can be squared
    if np.ptp(data) <= 1e-12:  # equal but for rounding
        return 2.0 ** -len(data) if data[0] > 0 else 1.0
    return float(stats.ttest_1samp(data, 0, alternative="greater").pvalue)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test that two models get equally many items right.

    Args:
        only_a: items that only a gets right; those that both or neither do say nothing.
        only_b: items that only b gets right.
    """
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def hierarchical_interval(differences: Sequence[Sequence[float]] | NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean over seeds and items, both taken as drawn at random, by a studentised bootstrap.

    The design is crossed: every seed meets the same items. With d = mean + seed + item + rest, the variance of the
    mean is (MS_seeds + MS_items - MS_rest) / (seeds * items) of a two-way analysis of variance, where neither of the
    first two may be below the last. Resampling rows and columns as they are would count the rest three times, and the
    few seeds too narrowly. So we draw 4,000 times what (estimate - truth) / error can be: item means resampled and
    shrunk to the items' own variance, because items are many and may be skewed; seed means as normal and their mean
    square as chi-squared, because 6 seeds show little more of their distribution than its width. Where seeds rule,
    this is the t interval of the seeds' means. The variance between seeds is taken 1.4 times as seen, as 6 of them
    often show too little.

    Covers 93 to 97 % on 6 to 12 seeds and 20 to 500 items, exponential items too (results/calibration.json); up to 99
    where neither seeds nor items vary, and 90 with 20 log-normal items that rule the variance. The same input gives the
    same interval.

    Args:
        differences: seeds x items, a minus b on each item, in the metric's unit.

    Raises:
        PacelineError: fewer than two seeds or items, or seeds with different items.
    """
    if len({len(row) for row in differences}) != 1 or min(len(differences), len(differences[0])) < 2:
        raise PacelineError("The interval needs at least 2 seeds, with the same items for each, and at least 2 items.")
    data = np.asarray(differences, dtype=float)
    seeds, items = data.shape
    mean = data.mean()
    rows, columns = data.mean(1) - mean, data.mean(0) - mean
    rest = np.square(data - mean - rows[:, None] - columns).sum() / ((seeds - 1) * (items - 1))
    by_seed = max(items * np.square(rows).sum() / (seeds - 1), rest)
    by_item = seeds * np.square(columns).sum() / (items - 1)
    of_item = max(by_item - rest, 0.0)  # without the rest, which by_seed holds already
    error = math.sqrt((by_seed + of_item) / (seeds * items))
    if error == 0:
        return float(mean), float(mean)

    normal, chi, counts = _draws(seeds, items)
    own = columns * math.sqrt(of_item / by_item) if of_item > 0 else np.zeros(items)
    drawn, squares = counts @ own / items, counts @ own**2 / items
    seed_variance = DOUBT * by_seed
    item_variance = np.maximum(squares - drawn**2, 0) * items / (items - 1)
    errors = np.sqrt((np.maximum(seed_variance * chi, rest) + seeds * item_variance) / (seeds * items))
    of_seeds = normal * math.sqrt(seed_variance / (seeds * items))
    usable = errors > 0
    ratios = [((drawn + sign * of_seeds)[usable] / errors[usable]) for sign in (1, -1)]
    low, high = np.quantile(ratios, [ALPHA / 2, 1 - ALPHA / 2])
    return float(mean - high * error), float(mean - low * error)


@functools.lru_cache(maxsize=1)
def _draws(seeds: int, items: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Standard normals, chi-squareds over their degrees of freedom, and how often each item is drawn, by resample."""
    rng = np.random.default_rng(0)
    even = (np.arange(RESAMPLES) + 0.5) / RESAMPLES  # quantiles, shuffled: steadier than free draws
    normal = stats.norm.ppf(rng.permutation(even))
    chi = stats.chi2.ppf(rng.permutation(even), seeds - 1) / (seeds - 1)
    drawn = rng.integers(items, size=(RESAMPLES, items)) + items * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES * items).reshape(RESAMPLES, items)
    return normal, chi, counts.astype(float)


def power(effect: float, sd: float, seeds: int, pairs: int = 1, alpha: float = ALPHA) -> float:
    """Chance that a two-sided paired test at level alpha / pairs finds an effect, for normal differences.

    With fewer than `seeds_needed` seeds it is 0. With just as many, the sign-flip test decides only where all
    differences have one sign, whose chance this is; with more, it is the t test's, by the noncentral t distribution,
    which the sign-flip test stays below by up to 0.07 with one seed more than needed, and 0.02 with four.

    Args:
        effect: true mean difference, in the metric's unit.
        sd: standard deviation of the difference over seeds, in the same unit.
        seeds: paired replicates.
        pairs: comparisons under Holm, of which this is the first to be decided.
        alpha: level over all pairs.
    """
    if seeds < (needed := seeds_needed(pairs, alpha)):
        return 0.0
    if sd == 0:
        return float(effect != 0)
    size = min(abs(effect) / sd, 100.0)  # beyond that it is certain, and scipy's formulas overflow
    if seeds == needed:
        return float(stats.norm.cdf(size) ** seeds + stats.norm.cdf(-size) ** seeds)
    bound, shift = stats.t.ppf(1 - alpha / pairs / 2, seeds - 1), size * math.sqrt(seeds)
    wrong_side = np.nan_to_num(stats.nct.cdf(-bound, seeds - 1, shift))  # scipy has nan where it is next to 0
    return float(stats.nct.sf(bound, seeds - 1, shift) + wrong_side)


_power = power  # its name is also what `more_seeds` calls the chance that is wanted


def more_seeds(differences: Sequence[float], pairs: int = 1, power: float = 0.8) -> int | None:
    """How many more seeds would settle a comparison with chance `power`, if effect and spread are as seen.

    None where 1,000 seeds in all would not, where the effect is 0, and where fewer than two differences show no
    spread. What was seen is itself uncertain: a plan, not a promise.
    """
    if len(differences) < 2 or (effect := float(np.mean(differences))) == 0:
        return None
    sd = float(np.std(differences, ddof=1))
    counts = range(len(differences), MOST_SEEDS + 1)
    more = bisect.bisect_left(counts, power, key=lambda seeds: _power(effect, sd, seeds, pairs))
    return more if more < len(counts) else None


def bound_warning(scores: Sequence[float], floor: float, ceiling: float | None) -> str | None:
    """One sentence if a contestant's scores are so near a bound that the task cannot tell it from its like.

    Near is a mean within 5 % of the way from floor to ceiling, or beyond; without a ceiling, a mean that differs from
    the floor by at most 5 % of the floor.

    Args:
        scores: one for each seed, in the metric's unit.
        floor: what guessing gives.
        ceiling: the best possible score, where it is known. It may be below the floor, as for a loss.
    """
    if not scores:
        return None
    mean = float(np.mean(scores))
    if ceiling is None:
        at_floor, at_ceiling = abs(mean - floor) <= NEAR * abs(floor), False
    else:
        way, up = NEAR * abs(ceiling - floor), 1 if ceiling > floor else -1
        at_floor, at_ceiling = up * (mean - floor) <= way, up * (ceiling - mean) <= way
    said = f"The mean score of {mean:.3g}"
    if at_ceiling:
        return f"{said} is at the ceiling of {ceiling:.3g}: only a harder task can tell who leads."
    if at_floor:
        return f"{said} is at the floor of {floor:.3g}, which guessing gives: nothing is learned yet."
    return None
