"""Facts about the statistics: exact where they claim to be, and wrong no more often than they admit."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from paceline.core.errors import PacelineError
from paceline.race.statistics import (
    ALPHA,
    bound_warning,
    compare,
    hierarchical_interval,
    holm,
    mcnemar,
    mean_interval,
    more_seeds,
    paired_t,
    power,
    seeds_needed,
    sign_flip,
    tost,
)


def brute_force(differences: list[float]) -> float:
    """Share of all 2^n ways to sign the differences whose sum is as far from 0 as the one seen; exact in fractions."""
    exact = [abs(Fraction(d)) for d in differences]
    seen = abs(sum(map(Fraction, differences)))
    far = [abs(sum(s * d for s, d in zip(signs, exact, strict=True))) >= seen
           for signs in itertools.product((1, -1), repeat=len(exact))]  # fmt: skip
    return sum(far) / len(far)


def scores(rows) -> dict[str, dict[int, float]]:
    return {name: dict(enumerate(map(float, row))) for name, row in zip("ABCDEF", rows, strict=False)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-256, 256), min_size=2, max_size=9))
def test_sign_flip_is_the_brute_force_enumeration_with_ties_and_zeros(counts):
    """Shares of 256 right answers tie often, and are exact in binary."""
    differences = [count / 256 for count in counts]
    assert sign_flip(differences) == pytest.approx(brute_force(differences), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-24, 24), min_size=2, max_size=8).filter(sum))
def test_ties_count_as_ties_where_decimals_are_rounded(counts):
    assert sign_flip([count / 24 * 100 for count in counts]) == pytest.approx(brute_force(counts), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 9))
def test_sign_flip_is_the_brute_force_enumeration_on_real_numbers(seed, seeds):
    differences = np.random.default_rng(seed).normal(0.5, 1, seeds).tolist()
    assert sign_flip(differences) == pytest.approx(brute_force(differences), abs=1e-12)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 1, 1], 0.25),
        ([1, 2, 3, 4, 5, 6], 2 / 64),
        ([-1, 2, 3, 4, 5, 6], 4 / 64),
        ([0.1, 0.2, -0.3], 1.0),  # 0 in decimals, 5e-17 in binary
        ([0, 0, 0, 0, 0, 1], 1.0),
        ([0, 0, 1, 1, 1, 1], 2 / 16),
        ([0, 0, 0], 1.0),
        ([3], 1.0),
    ],
)
def test_sign_flip_known_values(differences, p):
    assert sign_flip(differences) == pytest.approx(p)


@pytest.mark.parametrize("seeds", range(2, 15))
def test_the_least_p_at_n_seeds_is_2_to_the_1_minus_n(seeds):
    differences = np.random.default_rng(seeds).uniform(0.5, 1.5, seeds).tolist()
    assert sign_flip(differences) == sign_flip([-d for d in differences]) == pytest.approx(2.0 ** (1 - seeds))


def test_with_many_seeds_the_test_is_sampled_but_repeatable_and_never_too_small():
    rng = np.random.default_rng(0)
    clear, vague = rng.normal(3, 1, 18).tolist(), rng.normal(0.3, 1, 18).tolist()
    sums = np.zeros(1)
    for difference in vague:  # all 2^18 of them
        sums = np.concatenate((sums + difference, sums - difference))
    exact = np.mean(np.abs(sums) >= abs(sum(vague)) - 1e-9)
    assert 0.01 < exact < 0.99
    assert sign_flip(vague) == sign_flip(vague) == pytest.approx(exact, abs=0.01)
    assert 2.0**-17 <= sign_flip(clear) < 0.001


def holm_by_steps(p_values: list[float]) -> list[float]:
    """The adjusted p of a hypothesis: the least level at which the sequential procedure rejects it."""

    def rejected(level: float) -> set[int]:
        left = set(range(len(p_values)))
        while left and min(p_values[i] for i in left) * len(left) <= level:
            left.remove(min(left, key=lambda i: p_values[i]))
        return set(range(len(p_values))) - left

    levels = sorted({min(1.0, k * p) for p in p_values for k in range(1, len(p_values) + 1)} | {1.0})
    return [next((level for level in levels if i in rejected(level)), 1.0) for i in range(len(p_values))]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 64).map(lambda n: n / 64) | st.floats(0, 1), max_size=7))
def test_holm_is_the_sequential_procedure(p_values):
    assert holm(p_values) == pytest.approx(holm_by_steps(p_values), abs=1e-12)


def test_holm_known_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(("pairs", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (10, 9), (15, 10)])
def test_the_fewest_seeds_that_can_resolve_all_pairs(pairs, seeds):
    assert seeds_needed(pairs) == seeds


@pytest.mark.parametrize(("contestants", "seeds"), [(2, 6), (3, 7), (4, 8)])
def test_at_the_fewest_seeds_clear_differences_resolve_and_at_one_less_none_can(contestants, seeds):
    rng = np.random.default_rng(0)
    rows = np.arange(contestants)[:, None] + rng.uniform(0, 0.1, (contestants, seeds))
    assert all(c.resolved for c in compare(scores(rows)))
    assert not any(c.resolved for c in compare(scores(rows[:, 1:])))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_the_interval_is_the_textbook_formula(values):
    n, mean = len(values), math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    half = stats.t.ppf(0.975, n - 1) * error
    assert mean_interval(values) == pytest.approx((mean - half, mean + half), rel=1e-6, abs=1e-6)


def test_one_value_or_equal_values_give_a_point():
    assert mean_interval([0.7]) == (0.7, 0.7)
    assert mean_interval([0.1, 0.1, 0.1]) == pytest.approx((0.1, 0.1))
    assert mean_interval([0.0, 1e-169]) == pytest.approx((0.0, 0.0))


@pytest.mark.parametrize("seeds", [3, 8])
def test_the_interval_covers_the_mean_19_times_in_20(seeds):
    rng, rounds = np.random.default_rng(seeds), 1500
    intervals = (mean_interval(rng.normal(2, 3, seeds).tolist()) for _ in range(rounds))
    covered = sum(low <= 2 <= high for low, high in intervals)
    assert stats.binomtest(covered, rounds, 0.95).pvalue > 1e-3


def test_a_comparison_says_by_how_much_and_how_sure():
    a, b = [0.9, 0.8, 0.85, 0.95, 0.9, 0.7], [0.5, 0.6, 0.55, 0.45, 0.5, 0.4]
    (found,) = compare(scores([a, b]))
    differences = [x - y for x, y in zip(a, b, strict=True)]
    assert (found.a, found.b, found.seeds, found.resolved) == ("A", "B", 6, True)
    assert found.difference == pytest.approx(sum(differences) / 6)
    assert found.interval == pytest.approx(mean_interval(differences))
    assert found.p == found.p_holm == pytest.approx(2 / 64)


def test_seeds_are_paired():
    """Both vary by 100 from seed to seed; a is always ahead by about 1."""
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 100, 8)
    (found,) = compare(scores([shared + 1 + rng.normal(0, 0.1, 8), shared]))
    assert found.resolved
    unpaired = {"A": dict(enumerate(shared + 1)), "B": dict(enumerate(np.roll(shared, 1)))}
    assert not compare(unpaired)[0].resolved


def test_the_order_of_the_seeds_does_not_matter():
    rows = scores(np.random.default_rng(2).normal(size=(2, 8)))
    turned = {"A": rows["A"], "B": dict(reversed(rows["B"].items()))}
    assert compare(rows) == compare(turned)


def test_a_failed_seed_of_one_drops_only_the_pairs_concerned():
    rows = scores(np.random.default_rng(3).normal(size=(3, 8)))
    whole = {(c.a, c.b): c for c in compare(rows)}
    del rows["B"][5]
    partial = {(c.a, c.b): c for c in compare(rows)}
    assert {pair: c.seeds for pair, c in partial.items()} == {("A", "B"): 7, ("A", "C"): 8, ("B", "C"): 7}
    assert (partial["A", "C"].difference, partial["A", "C"].p) == (whole["A", "C"].difference, whole["A", "C"].p)
    left = [rows["A"][s] - rows["B"][s] for s in range(8) if s != 5]
    assert partial["A", "B"].difference == pytest.approx(np.mean(left))
    assert partial["A", "B"].p == pytest.approx(brute_force(left))


def test_contestants_that_share_less_than_two_seeds_are_not_compared():
    rows = scores(np.random.default_rng(4).normal(size=(3, 4)))
    rows["B"] = {3: 0.5, 9: 0.5}
    rows["D"] = {}
    assert [(c.a, c.b) for c in compare(rows)] == [("A", "C")]
    assert compare({}) == compare({"A": rows["A"]}) == []


def test_between_equal_contestants_a_race_resolves_anything_once_in_20_at_most():
    """A/A races of 4 contestants on 8 seeds that share a strong effect of the seed, as real ones do."""
    rng, races = np.random.default_rng(5), 2000
    wrong = 0
    for _ in range(races):
        rows = rng.normal(0, 3, (1, 8)) + rng.standard_t(3, (4, 8))
        wrong += any(c.resolved for c in compare(scores(rows)))
    assert stats.binomtest(wrong, races, ALPHA, alternative="greater").pvalue > 1e-3
    assert wrong > 0.01 * races  # or the test could not resolve anything


def test_a_race_of_unequal_contestants_is_often_resolved():
    rng, races = np.random.default_rng(6), 60
    ahead = np.array([[3], [0], [0], [0]])
    found = sum(any(c.resolved for c in compare(scores(ahead + rng.normal(0, 1, (4, 8))))) for _ in range(races))
    assert found > 0.9 * races


def t_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's distribution, by the incomplete beta function."""
    tail = special.betainc(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2
    return tail if t > 0 else 1 - tail


def t_of(values: list[float], truth: float = 0.0) -> float:
    n, mean = len(values), math.fsum(values) / len(values)
    return (mean - truth) / math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)


varied = st.lists(st.integers(-50, 50).map(lambda n: n / 7), min_size=2, max_size=12).filter(lambda v: len(set(v)) > 1)


@settings(max_examples=40, deadline=None)
@given(varied)
def test_paired_t_is_the_textbook_formula(differences):
    assert paired_t(differences) == pytest.approx(2 * t_tail(abs(t_of(differences)), len(differences) - 1), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(varied, st.floats(0.1, 5))
def test_tost_is_the_worse_of_two_textbook_tests(differences, margin):
    df = len(differences) - 1
    expected = max(t_tail(t_of(differences, -margin), df), t_tail(-t_of(differences, margin), df))
    assert tost(differences, margin) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.0] * 6, 1.0),
        ([0.25] * 6, 2 / 64),
        ([-0.25] * 6, 2 / 64),
        ([0.3 - 0.2, 0.4 - 0.3, 0.1], 0.25),  # equal in decimals only
        ([1e-169, 2e-169, 3e-169], 0.0741799),  # t = 2 * sqrt(3): its squares are too small for a float
        ([1.0, 2.0, 3.0], 0.0741799),
        ([3.0], 1.0),
        ([], 1.0),
    ],
)
def test_paired_t_known_values(differences, p):
    assert paired_t(differences) == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize(("difference", "p"), [(0.0, 1 / 64), (0.9, 1 / 64), (1.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_tost_of_equal_differences_asks_on_which_side_of_the_margin_they_are(difference, p):
    assert tost([difference] * 6, 1.0) == pytest.approx(p)


def test_tost_finds_equivalence_only_within_the_margin_and_needs_one():
    differences = [0.01, -0.02, 0.015, 0.0, -0.01, 0.005]
    assert tost(differences, 0.1) < 0.001 < ALPHA < tost(differences, 0.01)
    for margin in (0.0, -1.0, math.nan):
        with pytest.raises(PacelineError, match="margin above 0"):
            tost(differences, margin)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_sum_of_all_splits_as_uneven(only_a, only_b):
    n = only_a + only_b
    splits = [math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(only_a - only_b)]
    assert mcnemar(only_a, only_b) == pytest.approx(float(Fraction(sum(splits), 2**n)))


def test_mcnemar_known_values():
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1.0
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(22 / 1024)


def crossed(rng, seeds, items, seed_sd, item_sd, rest_sd, draw="standard_normal"):
    """Seeds x items with mean 0: three sources of variance, the items' as `draw` says, scaled to mean 0 and sd 1."""
    item = getattr(rng, draw)(size=items) - (draw == "standard_exponential")
    rest = rng.standard_normal((seeds, items))
    return seed_sd * rng.standard_normal((seeds, 1)) + item_sd * item + rest_sd * rest


@pytest.mark.parametrize(
    ("seeds", "items", "mix"),
    [
        (6, 200, (1.0, 0.0, 1.0)),  # seeds rule
        (8, 20, (0.3, 1.0, 1.0)),
        (8, 100, (0.1, 1.0, 0.5)),  # items rule
        (6, 100, (0.14, 0.0, 1.0)),  # seeds vary as much as the rest lets through: the hardest
        (6, 20, (0.1, 1.0, 0.5, "standard_exponential")),
        (12, 100, (0.25, 1.0, 0.5, "standard_exponential")),
    ],
)
def test_the_hierarchical_interval_covers_the_mean_19_times_in_20(seeds, items, mix):
    """Simulated; 400 rounds are within 3 points of the truth, and a plain percentile bootstrap is below on all."""
    rng, rounds = np.random.default_rng(seeds * items), 400
    intervals = [hierarchical_interval(crossed(rng, seeds, items, *mix)) for _ in range(rounds)]
    assert 0.91 <= sum(low <= 0 <= high for low, high in intervals) / rounds <= 0.985


def test_where_seeds_rule_it_is_the_t_interval_of_their_means_and_where_items_do_of_theirs():
    rng = np.random.default_rng(1)
    by_seed = crossed(rng, 6, 400, 10.0, 0.0, 1.0)
    low, high = mean_interval(by_seed.mean(1).tolist())
    assert hierarchical_interval(by_seed) == pytest.approx((low, high), abs=0.04 * (high - low))
    by_item = crossed(rng, 6, 400, 0.0, 10.0, 1.0)
    low, high = mean_interval(by_item.mean(0).tolist())
    assert hierarchical_interval(by_item) == pytest.approx((low, high), abs=0.06 * (high - low))


def test_the_hierarchical_interval_is_repeatable_and_follows_shift_scale_and_sign():
    data = crossed(np.random.default_rng(2), 7, 30, 0.3, 1.0, 1.0)
    low, high = hierarchical_interval(data.tolist())
    assert hierarchical_interval(data) == (low, high)
    assert hierarchical_interval(3 + 2 * data) == pytest.approx((3 + 2 * low, 3 + 2 * high))
    assert hierarchical_interval(data[::-1]) == pytest.approx((low, high))
    assert low < data.mean() < high


def test_skewed_items_give_an_interval_that_reaches_further_on_the_long_side():
    items = np.random.default_rng(3).exponential(size=40)
    low, high = hierarchical_interval(items + np.zeros((6, 1)))
    assert high - items.mean() > 1.15 * (items.mean() - low)


def test_equal_differences_give_a_point_and_too_few_or_ragged_ones_are_refused():
    assert hierarchical_interval([[0.5] * 4] * 6) == (0.5, 0.5)
    for wrong in ([], [[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 2.0], [1.0]]):
        with pytest.raises(PacelineError, match="at least 2 seeds"):
            hierarchical_interval(wrong)


@pytest.mark.parametrize(
    ("effect", "seeds", "pairs"), [(0.8, 9, 1), (-1.5, 9, 1), (0.6, 20, 1), (1.2, 12, 6), (0.0, 10, 1)]
)
def test_power_is_how_often_the_t_test_finds_the_effect(effect, seeds, pairs):
    """Simulated; 20,000 rounds are within 0.012 of the truth."""
    drawn = np.random.default_rng(seeds).normal(effect, 1, (20_000, seeds))
    found = stats.ttest_1samp(drawn, 0, axis=1).pvalue <= ALPHA / pairs
    assert power(3 * effect, 3.0, seeds, pairs) == pytest.approx(found.mean(), abs=0.012)


@pytest.mark.parametrize(("seeds", "pairs"), [(6, 1), (8, 6)])
def test_power_at_the_fewest_seeds_is_how_often_the_sign_flip_test_decides(seeds, pairs):
    """Simulated; 1,500 rounds are within 0.04 of the truth, and the t test's power is 0.1 above it."""
    drawn = np.random.default_rng(seeds).normal(1.5, 1, (1500, seeds))
    found = np.mean([sign_flip(row.tolist()) <= ALPHA / pairs for row in drawn])
    assert power(1.5, 1.0, seeds, pairs) == pytest.approx(found, abs=0.04)
    assert power(100.0, 1.0, seeds - 1, pairs) == 0.0


def test_power_without_spread_or_with_a_vast_effect():
    assert power(0.1, 0.0, 6) == power(-1e6, 1.0, 12) == power(1.0, 1e-320, 12) == pytest.approx(1.0)
    assert power(0.0, 0.0, 6) == 0.0
    assert power(0.0, 1.0, 12, pairs=3, alpha=0.01) == pytest.approx(0.01 / 3)


@pytest.mark.parametrize("effect", [0.4, 0.8, 1.2, 3.0])
@pytest.mark.parametrize("pairs", [1, 6])
def test_more_seeds_is_the_first_count_with_enough_power(effect, pairs):
    differences = [effect - 1, effect + 1, effect - 1, effect + 1]
    sd = math.sqrt(4 / 3)
    more = more_seeds(differences, pairs)
    assert more == next(n for n in itertools.count() if power(effect, sd, 4 + n, pairs) >= 0.8)
    assert power(effect, sd, 4 + more, pairs) >= 0.8 > power(effect, sd, 3 + more, pairs)
    later = more_seeds(differences, pairs, power=0.99)
    assert power(effect, sd, 4 + later, pairs) >= 0.99 and later >= more


def test_more_seeds_knows_when_it_cannot_say():
    assert more_seeds([1.0, -1.0]) is None
    assert more_seeds([1.0]) is None and more_seeds([]) is None
    assert more_seeds([1.001, -1.0, 1.0, -1.0]) is None
    assert more_seeds([0.5, 0.5, 0.5]) == 3  # no spread: as many as can decide at all
    assert more_seeds([1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.0]) == 0


@pytest.mark.parametrize(
    ("scores", "floor", "ceiling", "bound"),
    [
        ([0.1216, 0.1116, 0.1501, 0.1128], 0.125, 1.0, "floor of 0.125"),
        ([0.02, 0.03], 0.125, 1.0, "floor"),  # worse than guessing
        ([0.17], 0.125, 1.0, None),
        ([0.41, 0.42], 0.125, 1.0, None),
        ([0.95, 0.97], 0.125, 1.0, "ceiling of 1"),
        ([0.95, 0.95], 0.125, 1.0, None),
        ([1.0, 1.0], 1.0, 1.0, "ceiling"),
        ([7.9, 7.7], 8.0, None, "floor of 8"),
        ([3.1], 8.0, None, None),
        ([0.1, 0.2], 8.0, 0.0, "ceiling of 0"),  # a loss
        ([9.0], 8.0, 0.0, "floor"),
        ([], 0.0, 1.0, None),
    ],
)
def test_scores_at_a_bound_cannot_tell_who_leads(scores, floor, ceiling, bound):
    said = bound_warning(scores, floor, ceiling)
    assert said is None if bound is None else bound in said and said.endswith(".")
