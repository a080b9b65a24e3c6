"""Facts about verdicts: they follow from the bars that were declared, and from nothing else."""

import dataclasses

import pytest

from paceline.claims._contract import Bar, Design
from paceline.claims._verdict import EQUIVALENT, FAILS, HOLDS, UNCLEAR, advantages, decide
from paceline.core.errors import PacelineError
from paceline.race.contestant import Model

NOISE = (0.01, -0.02, 0.015, -0.005, 0.02, -0.01, 0.005, -0.015)


def result(method, rival, sham=None, better="higher", meters=0.5, flops=(80.0, 100.0)):
    """A race's result with these scores per seed."""
    arms = {"ema": method, "attention": rival, "sham": method if sham is None else sham}
    cells = [
        {
            "task": "recall", "contestant": name, "seed": seed, "status": "failed" if score is None else "done",
            "score": score, "meters": {"activated.0": meters} if name == "ema" else {},
            "ledger": {"flops": flops[0] if name == "ema" else flops[1]},
        }
        for name, scores in arms.items() for seed, score in enumerate(scores)
    ]  # fmt: skip
    return {"tasks": [{"name": "recall", "better": better}], "seeds": list(range(len(method))), "cells": cells}


def design(*bars):
    bars = bars or (Bar("recall", "ema", "attention"),)
    return Design([Model("ema"), Model("attention")], [], 8, bars, [Bar("recall", "ema", "sham")], "activated", "small")


def around(mean):
    return [mean + d for d in NOISE]


@pytest.mark.parametrize(
    ("gain", "bar", "verdict"),
    [
        (0.30, {}, HOLDS),
        (-0.30, {}, FAILS),
        (0.30, {"by": 0.2}, HOLDS),
        (0.10, {"by": 0.2}, FAILS),  # better, but by less than was promised
        (0.00, {}, UNCLEAR),
        (0.00, {"equal": 0.05}, EQUIVALENT),
        (0.00, {"equal": 0.001}, UNCLEAR),
        (0.00, {"by": -0.1}, HOLDS),  # no worse
        (-0.30, {"by": -0.1}, FAILS),
        (0.001, {"by": 0.2, "equal": 0.05}, EQUIVALENT),  # short of the promise, and within the margin of nothing
    ],
)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_bar_is_cleared_missed_or_left_open(gain, bar, verdict, better):
    sign = 1 if better == "higher" else -1
    race = result([0.5 + sign * d for d in around(gain)], [0.5] * 8, better=better)
    found = decide(design(Bar("recall", "ema", "attention", **bar)), race, faithful=True)
    assert found["verdict"] == found["bars"][0]["verdict"] == verdict
    assert found["marks"]["resolved"] == (verdict != UNCLEAR)
    assert found["bars"][0]["mean"] == pytest.approx(gain)


def test_one_missed_bar_fails_the_claim_and_one_open_bar_leaves_it_open():
    clear, missed, open_ = (Bar("recall", "ema", "attention", by=by) for by in (0.0, 0.5, 0.3))
    race = result(around(0.8), [0.5] * 8)
    assert decide(design(clear), race, True)["verdict"] == HOLDS
    assert decide(design(clear, open_), race, True)["verdict"] == UNCLEAR
    assert decide(design(clear, open_, missed), race, True)["verdict"] == FAILS


def test_bars_and_shams_share_one_level_of_error():
    """Eight seeds can settle six bars together and not seven."""
    race = result(around(0.8), [0.5] * 8, sham=[0.5] * 8)
    bars = [Bar("recall", "ema", "attention", by=b / 100) for b in range(6)]
    assert decide(design(*bars[:5]), race, True)["verdict"] == HOLDS
    assert decide(design(*bars), race, True)["verdict"] == UNCLEAR


def test_a_currency_counts_the_share_saved():
    race = result(around(0.5), [0.5] * 8)
    assert advantages(Bar("recall", "ema", "attention", measure="flops"), race) == pytest.approx([0.2] * 8)
    saved = decide(design(Bar("recall", "ema", "attention", by=0.1, measure="flops")), race, True)
    assert saved["verdict"] == HOLDS and "of flops +0.200" in saved["effect"]
    assert decide(design(Bar("recall", "ema", "attention", by=0.3, measure="flops")), race, True)["verdict"] == FAILS


def metered(method, rival):
    """A race in which all score alike, and two layers of each have these meters on every seed."""
    race = result([0.5] * 8, [0.5] * 8)
    for cell in race["cells"]:
        low, high = rival if cell["contestant"] == "attention" else method
        cell["meters"] = {"domain.0": low, "balance.0": 0.9, "domain.1": high}
    return race


def test_a_meter_counts_as_its_difference_over_the_layers():
    race, bar = metered((0.1, 0.3), (0.0, 0.1)), Bar("recall", "ema", "attention", by=0.1, measure="meter:domain")
    assert advantages(bar, race) == pytest.approx([0.15] * 8)
    declared = dataclasses.replace(design(bar), meter="domain")
    found = decide(declared, race, True)
    assert found["verdict"] == HOLDS and "of domain +0.150" in found["effect"]
    assert decide(declared, metered((0.0, 0.1), (0.1, 0.3)), True)["verdict"] == FAILS


def test_a_bar_that_measures_nothing_is_refused_before_a_race_or_with_its_meters():
    with pytest.raises(PacelineError, match=r"cannot measure 'flop': give score, tokens, flops, .*, or meter:NAME\."):
        Bar("recall", "ema", "attention", measure="flop")
    misspelt = Bar("recall", "ema", "attention", measure="meter:domian")
    with pytest.raises(PacelineError, match="ema has no meter 'domian'; its meters are: balance, domain"):
        decide(design(misspelt), metered((0.1, 0.3), (0.0, 0.1)), True)


@pytest.mark.parametrize(
    ("sham", "meter", "acts"), [(0.4, 0.5, True), (0.8, 0.5, False), (0.4, 0.0, False), (0.4, 1.0, False)]
)
def test_a_method_acts_where_its_sham_is_worse_and_its_meter_moves(sham, meter, acts):
    race = result(around(0.8), [0.5] * 8, sham=[sham] * 8, meters=meter)
    assert decide(design(), race, True)["marks"]["acts"] is acts


def test_a_meter_that_nothing_reads_is_refused():
    wrong = dataclasses.replace(design(), meter="activted")
    with pytest.raises(PacelineError, match="ema has no meter 'activted'; its meters are: activated"):
        decide(wrong, result(around(0.8), [0.5] * 8), True)
    assert decide(wrong, result([None] * 8, [0.5] * 8), True)["marks"]["acts"] is False


def test_pairs_are_seeds_that_both_finished():
    race = result([0.8, None, 0.9], [0.5, 0.5, None])
    assert advantages(Bar("recall", "ema", "attention"), race) == pytest.approx([0.3])


def test_nothing_finished_is_unclear_and_said():
    found = decide(design(), result([None] * 8, [0.5] * 8), True)
    assert found["verdict"] == UNCLEAR and "no seed finished" in found["effect"]


@pytest.mark.parametrize("faithful", [True, False])
def test_faithful_is_passed_on(faithful):
    assert decide(design(), result(around(0.8), [0.5] * 8), faithful)["marks"]["faithful"] is faithful
