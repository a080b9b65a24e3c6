"""The winner is raced again on fresh seeds, and only a lead that shows there is confirmed."""

import json

import pytest
from _toys import Refuses, Toy, event

from paceline.race.contestant import Outcome
from paceline.race.grid import PILOT_SEED
from paceline.race.run import race


class Lucky(Toy):
    """Good on the seeds of the race, and nothing special on others."""

    def act(self, job, report):
        done = super().act(job, report)
        return Outcome([0.9 if job.seed < 6 else 0.1] * 2, done.curve, done.ledger)


class Better(Toy):
    def act(self, job, report):
        done = super().act(job, report)
        return Outcome([item + 0.05 for item in done.items], done.curve, done.ledger)


def run(folder, *contestants, **more):
    result = race(contestants, [event()], out=folder, **{"seeds": 6, "confirm": True, **more})
    assert result == json.loads((folder / "result.json").read_text())
    return result


def test_a_lead_that_lasts_is_confirmed_on_seeds_of_its_own(tmp_path):
    result = run(tmp_path / "race", Better("b", settings=(0.1, 0.2)), Toy("a"))
    found = result["confirmation"]
    assert (found["a"], found["b"], found["verdict"]) == ("b", "a", "confirmed")
    assert found["seeds"] == [6, 7, 8, 9, 10, 11] and not set(found["seeds"]) & {*result["seeds"], PILOT_SEED}
    assert found["difference"] == pytest.approx(0.05) and found["p"] == 2 / 2**6
    assert "On 6 fresh seeds b leads a by 0.05 accuracy" in found["sentence"]
    assert result["bill"]["confirmation"]["tokens"] == 12 * 96 == result["bill"]["race"]["tokens"]


def test_luck_is_not_confirmed(tmp_path):
    result = run(tmp_path / "race", Toy("a"), Lucky("lucky"))
    assert result["standings"]["recall"][0]["contestant"] == "lucky"
    assert result["comparisons"]["recall"][0]["verdict"] == "not resolved"
    assert (
        result["confirmation"]["a"] == "lucky"
        and result["confirmation"]["verdict"] == "not confirmed"
        and result["confirmation"]["difference"] < 0
    )


def test_a_finished_race_can_be_confirmed_later(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    contestants = Better("b", marks=marks), Toy("a", marks=marks)
    before = run(tmp_path / "race", *contestants, confirm=False)
    ran = len(list(marks.iterdir()))
    after = run(tmp_path / "race", *contestants)
    assert before["confirmation"] is None and "confirmation" not in before["bill"]
    assert len(list(marks.iterdir())) == ran + 12 and after["cells"] == before["cells"]
    assert after["confirmation"]["verdict"] == "confirmed"


def test_without_a_rival_there_is_nothing_to_confirm(tmp_path):
    assert run(tmp_path / "race", Toy("a"), Refuses("b"), seeds=2)["confirmation"] is None
