"""The calibration in short, and its published figures: verdicts are wrong no more often than they admit."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from paceline.race.statistics import ALPHA

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("calibration", ROOT / "stress" / "calibration.py")
calibration = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(calibration)

RACED = json.loads((ROOT / "results" / "race" / "default.json").read_text(encoding="utf-8"))
PUBLISHED = json.loads((ROOT / "results" / "calibration.json").read_text(encoding="utf-8"))


def silent(rounds, name):
    return rounds


def test_two_equal_contestants_have_a_winner_in_1_of_32_events():
    """Six seeds decide where all differences have one sign, and real scores have no ties here."""
    found = calibration.aa_verdicts(RACED, 2, 6, 1000, silent)["false_winners"]
    assert stats.binomtest(found["count"], found["of"], 1 / 32).pvalue > 1e-3


def test_four_equal_contestants_have_a_winner_once_in_20_at_most_and_without_holm_more_often():
    found = calibration.aa_verdicts(RACED, 4, 8, 250, silent)
    assert found["false_winners"]["interval"][0] <= ALPHA < found["without_holm"]["interval"][0]
    assert found["false_winners"]["count"] > 0


def test_twins_have_the_deviations_of_one_real_contestant_and_random_signs():
    columns = calibration.columns(RACED)
    assert len(columns) == 8 and all(len(column) == 8 for column in columns)
    column, rng = columns[0], np.random.default_rng(0)
    signs = []
    for _ in range(100):
        for twin in calibration.twins(column, 3, 8, rng).values():
            deviations = np.array(list(twin.values())) - np.mean(column)
            assert sorted(abs(deviations)) == pytest.approx(sorted(abs(np.array(column) - np.mean(column))))
            signs += (deviations > 0).tolist()
    assert np.mean(signs) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("name", calibration.MIXES)
def test_simulated_differences_have_mean_0(name):
    rng = np.random.default_rng(0)
    means = [calibration.crossed(calibration.MIXES[name], 6, 20, rng).mean() for _ in range(2000)]
    assert abs(np.mean(means)) < 4 * stats.sem(means)


@pytest.mark.parametrize(("count", "rounds"), [(0, 100), (3, 100), (100, 100)])
def test_a_share_has_the_clopper_pearson_interval(count, rounds):
    low = stats.beta.ppf(0.025, count, rounds - count + 1) if count else 0.0
    high = stats.beta.ppf(0.975, count + 1, rounds - count) if count < rounds else 1.0
    assert calibration.share(count, rounds)["interval"] == pytest.approx([low, high])


def test_published_verdicts_and_races_are_wrong_once_in_20_at_most():
    assert {"torch", "numpy", "scipy", "processor"} <= PUBLISHED["environment"].keys()
    verdicts = [row["false_winners"] for row in PUBLISHED["resampled"]]
    assert len(verdicts) == 2 and all(v["of"] >= 1000 and v["interval"][0] <= ALPHA for v in verdicts)
    races = PUBLISHED["races"]
    assert races["false_winners"]["of"] == len(races["differences"]) >= 100
    assert races["false_winners"]["share"] <= ALPHA
    assert len(set(races["differences"])) > 80  # every race has seeds of its own


def test_published_coverage_and_power_are_as_declared():
    """Chance moves 600 rounds by up to 3 points; 20 log-normal items are the case that does not hold."""
    held = [r for r in PUBLISHED["coverage"] if (r["mix"], r["items"]) != ("items are log-normal", 20)]
    assert len(held) == 69
    assert {r["mix"]: r["hierarchical"] for r in held if not 0.915 <= r["hierarchical"]["share"] <= 0.99} == {}
    for row in PUBLISHED["planted"]:
        assert -0.05 <= row["declared"] - row["found"]["share"] <= 0.1, row
