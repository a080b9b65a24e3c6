"""Facts about the statistics: exact where they claim to be, and wrong no more often than they admit."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from paceline.race.statistics import ALPHA, compare, holm, mean_interval, seeds_needed, sign_flip


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
