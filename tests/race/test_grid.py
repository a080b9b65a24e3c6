"""Facts about the grid: a folder belongs to one race, and cells come seed by seed at the chosen settings."""

import pytest
from _toys import Toy, event
from hypothesis import given
from hypothesis import strategies as st

from paceline.core.errors import PacelineError
from paceline.data.induction import Induction
from paceline.race.cell import _write
from paceline.race.contestant import Event, Model
from paceline.race.grid import PILOT_SEED, Grid, slug


def two_events() -> list[Event]:
    return [event(), Event(Induction(symbols=4, length=12), 480, 3000, 4)]


def make(folder, **changes) -> Grid:
    whole = {"contestants": [Toy("a", (0.1, 0.2)), Toy("b")], "events": two_events(), "seeds": range(3)}
    return Grid(**{**whole, "folder": folder, **changes})


def record(cell, score: float | None) -> None:
    _write(cell, {"status": "failed" if score is None else "done", "score": score})


def test_the_race_goes_seed_by_seed(tmp_path):
    """So that wherever it is cut, contestants have run on the same seeds."""
    order = [(c.job.seed, c.job.event.task.name, c.contestant.name, c.phase) for c in make(tmp_path).race()]
    assert order == [
        (seed, task, name, "race") for seed in range(3) for task in ("recall", "induction") for name in ("a", "b")
    ]


def test_tuning_tries_every_setting_where_there_is_a_choice(tmp_path):
    cells = make(tmp_path).tuning()
    assert [(c.contestant.name, c.job.event.task.name, c.job.setting) for c in cells] == [
        ("a", "recall", 0.1), ("a", "recall", 0.2), ("a", "induction", 0.1), ("a", "induction", 0.2),
    ]  # fmt: skip
    assert {(c.phase, c.job.seed, c.job.model_folder) for c in cells} == {("tuning", PILOT_SEED, None)}
    assert PILOT_SEED not in range(10_000)


def test_every_cell_has_places_of_its_own(tmp_path):
    grid = make(tmp_path)
    cells = [*grid.tuning(), *grid.race()]
    assert len({c.record for c in cells}) == len({c.job.folder for c in cells}) == len(cells) == 4 + 12
    assert len({c.job.model_folder for c in grid.race()}) == 12


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((0.2, 0.7, 0.5), 0.2),
        ((0.7, 0.2, 0.5), 0.1),
        ((0.5, 0.5, 0.5), 0.1),  # the smallest of equals
        ((None, 0.1, 0.3), 0.3),
        ((None, None, 0.0), 0.3),
        ((None, None, None), 0.1),
    ],
)
def test_the_chosen_setting_has_the_best_pilot_score(tmp_path, scores, best):
    grid = make(tmp_path, contestants=[Toy("a", (0.1, 0.2, 0.3))], events=[event()])
    for cell, score in zip(grid.tuning(), scores, strict=True):
        record(cell, score)
    assert grid.chosen(*grid.contestants, *grid.events) == best
    assert {cell.job.setting for cell in grid.race()} == {best}


def test_where_less_is_better_the_chosen_setting_has_the_least_score(tmp_path):
    class Bits(Induction):
        better = "lower"

    events = [Event(Bits(symbols=4, length=12), 480, 3000, 4)]
    grid = make(tmp_path, contestants=[Toy("a", (0.1, 0.2, 0.3))], events=events)
    for cell, score in zip(grid.tuning(), (2.5, 1.5, 2.0), strict=True):
        record(cell, score)
    assert grid.chosen(*grid.contestants, *grid.events) == 0.2


def test_each_event_has_its_own_choice_and_a_broken_record_counts_for_nothing(tmp_path):
    grid = make(tmp_path)
    for cell, score in zip(grid.tuning(), (0.9, 0.1, 0.1, 0.9), strict=True):
        record(cell, score)
    assert [grid.chosen(grid.contestants[0], e) for e in grid.events] == [0.1, 0.2]
    grid.tuning()[0].record.write_text("{")
    assert grid.chosen(grid.contestants[0], grid.events[0]) == 0.2
    assert grid.chosen(grid.contestants[1], grid.events[0]) == 0.1


def test_a_race_continues_in_its_folder(tmp_path):
    make(tmp_path / "out").claim()
    content = (tmp_path / "out" / "race.json").read_bytes()
    make(tmp_path / "out").claim()
    make(tmp_path / "out", contestants=[Toy("b"), Toy("a", (0.1, 0.2))]).claim()  # in another order
    assert (tmp_path / "out" / "race.json").read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"contestants": [Toy("a", (0.1, 0.2))]}, "contestants"),
        ({"contestants": [Toy("a", (0.1, 0.2)), Toy("c")]}, "contestants"),
        ({"contestants": [Toy("a", (0.1, 0.3)), Toy("b")]}, "contestants"),
        ({"events": [event()]}, "tasks"),
        ({"events": [Event(Induction(symbols=5, length=12), 480, 3000, 4), event()]}, "tasks"),
        ({"events": [two_events()[1], event(tokens=960)]}, "tokens"),
        ({"events": [two_events()[1], event(parameters=4000)]}, "parameters"),
        ({"events": [two_events()[1], event(batch=8)]}, "batch"),
        ({"seeds": range(4)}, "seeds"),
    ],
)
def test_another_race_in_the_folder_is_refused_and_what_differs_is_named(tmp_path, changes, differs):
    make(tmp_path).claim()
    content = (tmp_path / "race.json").read_bytes()
    with pytest.raises(PacelineError, match=rf"holds another race \({differs} differ\)"):
        make(tmp_path, **changes).claim()
    assert (tmp_path / "race.json").read_bytes() == content


def test_models_of_another_depth_are_another_race(tmp_path):
    make(tmp_path, contestants=[Model("ema", layers=1)]).claim()
    make(tmp_path, contestants=[Model("ema", layers=1)]).claim()
    with pytest.raises(PacelineError, match="contestants differ"):
        make(tmp_path, contestants=[Model("ema", layers=2)]).claim()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b"3", b"null", b"{}"])
def test_a_race_json_that_is_broken_or_foreign_is_refused_and_kept(tmp_path, content):
    (tmp_path / "race.json").write_bytes(content)
    with pytest.raises(PacelineError, match=r"race\.json cannot be read|not a race's|holds another race"):
        make(tmp_path).claim()
    assert (tmp_path / "race.json").read_bytes() == content


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(PacelineError, match="choose another --out"):
        make(tmp_path / "out").claim()
    assert (tmp_path / "out").read_text() == "mine"


ALIKE = ["attention(window=64)", "attention-window-64", "attention(window=6.4)", "../../etc", "a" * 200, "a" * 201]
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60) | st.sampled_from(ALIKE)


@given(NAMES, NAMES)
def test_slugs_differ_where_names_do_and_are_plain_folders(one, other):
    assert (slug(one) == slug(other)) == (one == other)
    assert set(slug(one)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
    assert 0 < len(slug(one)) < 60


def test_a_slug_is_readable():
    assert slug("seqboat") == "seqboat"
    assert slug("attention(window=64)").startswith("attention-window-64-")
