"""Facts about what a result adds to the scores: warnings, intervals over items, and what it would take to settle."""

import numpy as np
import pytest
from _toys import Toy, event

from paceline.race.cell import _write
from paceline.race.grid import Grid
from paceline.race.result import assemble
from paceline.race.statistics import hierarchical_interval, more_seeds

NOISE = np.random.default_rng(0).normal(size=(2, 8, 20))


def result(folder, *scores):
    """Contestants a, b, ... with these items (seeds x items), assembled."""
    grid = Grid([Toy(name) for name in "abc"[: len(scores)]], [event()], range(len(scores[0])), folder)
    for cell in grid.race():
        items = scores["abc".index(cell.contestant.name)][cell.job.seed]
        facts = {
            "status": "done", "reason": None, "score": float(np.mean(items)), "items": list(items), "curve": [],
            "ledger": {}, "meters": {}, "trace": None,
        }  # fmt: skip
        _write(cell, facts)
    return assemble(grid)


def test_an_open_pair_says_how_many_seeds_would_settle_it(tmp_path):
    found = result(tmp_path, 0.60 + 0.05 * NOISE[0], 0.595 + 0.05 * NOISE[1])
    (pair,) = found["comparisons"]["recall"]
    differences = (0.005 + 0.05 * (NOISE[0] - NOISE[1])).mean(1)
    assert pair["verdict"] == "not resolved"
    assert pair["more_seeds"] == more_seeds(differences.tolist()) > 0
    assert f"{pair['more_seeds']} more seeds would settle it four times in five" in found["answer"]


def test_a_settled_pair_asks_for_no_more(tmp_path):
    found = result(tmp_path, 0.9 + 0.01 * NOISE[0], 0.5 + 0.01 * NOISE[1])
    (pair,) = found["comparisons"]["recall"]
    assert pair["verdict"] == "a is better" and pair["more_seeds"] == 0
    assert "more seed" not in found["answer"]


def test_a_pair_without_a_difference_cannot_be_settled(tmp_path):
    found = result(tmp_path, 0.5 + 0.1 * NOISE[0], 0.5 + 0.1 * NOISE[0])
    assert found["comparisons"]["recall"][0]["more_seeds"] is None
    assert "no number of seeds that one would run settles it" in found["answer"]


def test_the_interval_over_items_takes_them_as_drawn_too(tmp_path):
    hard = np.linspace(-0.4, 0.4, 20)  # on which items a is better differs, and by the same in every seed
    found = result(tmp_path, 0.6 + hard + 0.001 * NOISE[0], 0.55 + 0.001 * NOISE[1])
    (pair,) = found["comparisons"]["recall"]
    expected = hierarchical_interval(0.05 + hard + 0.001 * (NOISE[0] - NOISE[1]))
    assert pair["interval_items"] == pytest.approx(expected)
    assert pair["interval_items"][0] < 0 < pair["interval"][0]  # settled on these items, not on others


def test_cells_with_other_items_have_no_interval_over_items(tmp_path):
    short = [row[:5] for row in 0.5 + 0.1 * NOISE[1]]
    (pair,) = result(tmp_path, 0.6 + 0.1 * NOISE[0], short)["comparisons"]["recall"]
    assert pair["interval_items"] is None and pair["items"] is None


def test_wins_and_losses_are_counted_item_by_item(tmp_path):
    a = np.tile([1.0] * 9 + [0.0] * 2 + [0.3] * 4, (8, 1))
    b = np.tile([0.0] * 9 + [1.0] * 2 + [0.3] * 4, (8, 1))
    a[0, 0], b[0, 0] = 0.0, 1.0  # one seed does not turn an item
    (pair,) = result(tmp_path, a, b)["comparisons"]["recall"]
    assert pair["items"] == {"a": 9, "b": 2, "equal": 4, "p": pytest.approx(2 * (1 + 11 + 55) / 2**11)}


def test_everything_spent_is_on_the_bill(tmp_path):
    grid = Grid([Toy("a", settings=(0.1, 0.2)), Toy("b")], [event()], [0, 1], tmp_path)
    spent = {"ledger": {"tokens": 100, "seconds": 2.0}, "evaluation": {"tokens": 7, "flops": 3.0}}
    for cell in [*grid.tuning(), *grid.race()]:
        lost = cell.phase == "race" and (cell.contestant.name, cell.job.seed) == ("b", 1)
        _write(cell, {"status": "failed" if lost else "done", "reason": None, "score": None if lost else 0.5, **spent})
    bill = assemble(grid)["bill"]
    assert {phase: ledger["tokens"] for phase, ledger in bill.items()} == {
        "tuning": 200, "race": 300, "evaluation": 42, "failed": 100,
    }  # fmt: skip
    assert bill["failed"]["seconds"] == 2.0 and bill["evaluation"]["flops"] == 18.0


@pytest.mark.parametrize(("level", "word"), [(1 / 3, "floor"), (0.999, "ceiling"), (0.6, None)])
def test_scores_at_a_bound_are_warned_of(tmp_path, level, word):
    found = result(tmp_path, np.full((8, 20), level), np.full((8, 20), 0.5))
    row = next(row for row in found["standings"]["recall"] if row["contestant"] == "a")
    assert (row["warning"] is None) if word is None else word in row["warning"]
