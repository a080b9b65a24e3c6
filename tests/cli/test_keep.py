"""`paceline race --keep DIR`: nothing that was there is ever overwritten, and a refusal comes before any training."""

import sys
from pathlib import Path

import pytest
from _command import TINY, Call, load, records, sentence, times

from paceline.lm.checkpoint import load_model

RACE = ("race", "ema", "--task", "recall(pairs=2, stretch=4)", *TINY, "--seeds", "1", "--out", "races/one")


@pytest.mark.parametrize(
    "keep", ["full", "file", "file/inside", "full/precious.md/inside", "/proc/nowhere", "/proc/nowhere/else"]
)
def test_a_folder_that_cannot_take_the_winner_is_refused_first(keep: str, call: Call) -> None:
    if keep.startswith("/proc") and sys.platform != "linux":
        pytest.skip("only Linux has a /proc in which nobody can make a folder")
    Path("file").write_text("precious")
    Path("full").mkdir()
    Path("full/precious.md").write_text("precious")
    refusal = sentence(call(*RACE, "--keep", keep))
    assert "choose another --keep" in refusal and Path(keep).parts[0] in refusal
    assert not records(Path("races/one"))
    assert Path("file").read_text() == Path("full/precious.md").read_text() == "precious"
    assert [path.name for path in Path("full").iterdir()] == ["precious.md"]


@pytest.mark.parametrize(
    "keep", ["races/one", "races", ".", "races/one/cells", "races/one/models/best", "races/../races"]
)
def test_the_race_itself_is_never_replaced_by_its_winner(keep: str, call: Call) -> None:
    for again in range(2):
        assert "the race itself" in sentence(call(*RACE, "--keep", keep))
        assert bool(records(Path("races/one"))) == bool(again)
        assert again or call(*RACE).code == 0


def test_the_winner_can_be_kept_twice_in_its_own_folder_but_not_in_another_races(call: Call) -> None:
    assert call(*RACE, "--keep", "best").code == 0
    weights, before = Path("best/model.safetensors").read_bytes(), times(Path("races/one"))
    assert load(Path("best/race.json"))["contestant"] == "ema"
    assert call(*RACE, "--keep", "best").code == 0  # the same race
    assert call(*RACE, "--keep", "copies/second").code == 0  # another place, made with its parents
    assert (
        Path("best/model.safetensors").read_bytes() == Path("copies/second/model.safetensors").read_bytes() == weights
    )
    assert times(Path("races/one")) == before

    other = ("race", "attention", *RACE[2:-1], "races/two", "--keep", "best")
    assert "best is not empty and not the winner of this race" in sentence(call(*other))
    assert not records(Path("races/two"))
    assert load_model(Path("best"))[1].plan == ("ema", "ema")
    assert not list(Path().glob("**/.*"))
