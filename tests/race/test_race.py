"""`race()` from Python: contestants of any kind, failures among them, and the guard that scripts need."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from _toys import Divides, Killed, Refuses, Toy, event
from _unigram import Unigram, score

from paceline.core.errors import PacelineError
from paceline.data._corpus import prepare
from paceline.data._reader import Document
from paceline.data.recall import Recall
from paceline.data.text import Text
from paceline.race.cell import _write
from paceline.race.contestant import Event
from paceline.race.pool import Limits
from paceline.race.run import race
from paceline.race.watcher import Watcher
from paceline.report import render, table

CLOCK = ("created", "sha256")
"""What differs between two results that say the same."""


class Diary(Watcher):
    def __init__(self) -> None:
        self.cells, self.steps, self.ends = 0, set(), []

    def begin(self, cells: int) -> None:
        self.cells = cells

    def step(self, cell: Any, done: int, of: int, loss: float) -> None:
        assert 0 < done <= of
        self.steps.add(str(cell.record))

    def finish(self, cell: Any, record: dict[str, Any]) -> None:
        self.ends.append((str(cell.record), record["status"]))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Event:
    """Letters of very different frequencies: counting them is worth a bit or two."""
    letters = "".join(random.Random(0).choices("etaoin shrdlu", range(1, 14), k=20_000))
    folder = tmp_path_factory.mktemp("text")
    prepare([Document("letters", letters.encode())], folder)
    return Event(Text(folder, length=32), tokens=4 * 4 * 32, parameters=4000, batch=4)


@pytest.fixture(scope="module")
def mixed(text: Event, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, Diary]:
    """A mixer by name beside a contestant that has no network: the result, its folder, and what was heard."""
    out, diary = tmp_path_factory.mktemp("mixed") / "race", Diary()
    return race(["ema", Unigram()], [text], out=out, seeds=2, watcher=diary), out, diary


def test_a_contestant_of_another_kind_runs_beside_a_mixer(
    mixed: tuple[dict[str, Any], Path, Diary], text: Event
) -> None:
    result, out, _ = mixed
    assert result == json.loads((out / "result.json").read_text())
    assert [row["contestant"] for row in result["standings"]["text"]] == ["unigram", "ema"]  # 4 steps teach little
    for cell in result["cells"]:
        assert cell["status"] == "done" and len(cell["items"]) == len(text.task.evaluation().ids)
        if cell["contestant"] == "unigram":
            counts = torch.full((256,), 0.1, dtype=torch.double)
            for step in range(4):
                counts += torch.bincount(text.task.batch(4, cell["seed"], step).targets.flatten(), minlength=256)
            assert cell["lr"] == 0.1 and cell["items"] == pytest.approx(score(text.task, counts))
    (pair,) = result["comparisons"]["text"]
    assert {pair["a"], pair["b"]} == {"ema", "unigram"} and pair["seeds"] == 2


def test_a_winner_that_leaves_no_model_is_named_without_a_folder(mixed: tuple[dict[str, Any], Path, Diary]) -> None:
    result, out, _ = mixed
    winner = result["winner"]
    assert (winner["contestant"], winner["folder"], winner["command"]) == ("unigram", None, None)
    assert not (out / "winner").exists()
    assert "unigram" in render(result) and table(result, "text").row_count == 2


def test_the_watcher_hears_of_every_cell_once(mixed: tuple[dict[str, Any], Path, Diary]) -> None:
    result, out, diary = mixed
    cells = {str(path) for path in out.glob("cells/**/*.json")}
    assert diary.cells == len(cells) == len(result["cells"]) + len(result["tuning"])
    assert diary.steps == cells and sorted(diary.ends) == sorted((cell, "done") for cell in cells)


def test_called_again_it_only_tells_what_is_known(mixed: tuple[dict[str, Any], Path, Diary], text: Event) -> None:
    result, out, _ = mixed
    again = Diary()
    repeated = race(["ema", Unigram()], [text], out=out, seeds=2, watcher=again)
    assert {**repeated, **dict.fromkeys(CLOCK)} == {**result, **dict.fromkeys(CLOCK)}
    assert again.steps == set() and len(again.ends) == again.cells


def test_other_settings_of_the_same_contestant_are_another_race(
    mixed: tuple[dict[str, Any], Path, Diary], text: Event
) -> None:
    other = Unigram()
    other.settings = (1.0, 2.0)
    with pytest.raises(PacelineError, match=r"holds another race \(contestants differ\)"):
        race(["ema", other], [text], out=mixed[1], seeds=2)


def test_a_contestant_may_refuse_an_event_before_anything_runs(text: Event, tmp_path: Path) -> None:
    with pytest.raises(PacelineError, match="unigram answers no questions: race it on text, not on recall"):
        race([Toy(), Unigram()], [text, event()], out=tmp_path / "race", seeds=1)
    assert not (tmp_path / "race").exists()


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PacelineError, match=f"Two tasks are named {event().task.name}"):
        race([Toy("a")], [event(), event()], out=tmp_path / "race", seeds=1)
    assert not (tmp_path / "race").exists()


def test_failures_are_results_and_the_others_are_still_compared(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    better = Toy("better", settings=(0.05,))
    result = race([Toy(), Divides("divides"), better, Killed("killed")], [event()], out=tmp_path / "race", seeds=2)
    capfd.readouterr()  # the traceback of the one that crashed
    status = {(c["contestant"], c["status"], c["reason"]) for c in result["cells"]}
    crash = "It crashed: ZeroDivisionError: division by zero"
    kill = "Its process was killed by SIGKILL (out of memory?)."
    assert status == {
        ("good", "done", None),
        ("better", "done", None),
        ("divides", "failed", crash),
        ("killed", "failed", kill),
    }
    rows = result["standings"]["recall"]
    assert [row["contestant"] for row in rows[:2]] == ["better", "good"]
    assert {(row["contestant"], row["mean"], row["seeds"], row["failed"]) for row in rows[2:]} == {
        ("divides", None, 0, 2), ("killed", None, 0, 2),
    }  # fmt: skip
    (pair,) = result["comparisons"]["recall"]
    assert {pair["a"], pair["b"]} == {"good", "better"}
    assert result["bill"]["failed"]["seconds"] > 0 and result["bill"]["race"]["tokens"] == 4 * 96
    assert result["winner"]["contestant"] == "better"
    page = render(result)
    assert "division by zero" in page and "killed by SIGKILL" in page and table(result, "recall").row_count == 4


def test_where_all_fail_there_is_no_winner_and_the_answer_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = race([Refuses("refuses"), Divides("divides")], [event()], out=tmp_path, seeds=2)
    capfd.readouterr()
    assert result["winner"] is None and result["comparisons"] == {"recall": []}
    assert "no cell finished" in result["answer"]
    assert [c["reason"] for c in result["cells"] if c["contestant"] == "refuses"] == [
        "The sea is too rough: wait for calm."
    ] * 2
    assert "no cell finished" in render(result)


@pytest.mark.parametrize(("contestants", "seeds"), [(1, 6), (2, 6), (3, 7), (4, 8)])
def test_by_default_there_are_as_many_seeds_as_can_settle_every_pair(
    contestants: int, seeds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settle(cells: Any, limits: Limits, watch: object, lock: object) -> Any:
        for cell in cells:
            score = int(cell.contestant.name)
            _write(cell, {"status": "done", "reason": None, "score": score, "items": [1.0], "ledger": {}})
            yield cell

    monkeypatch.setattr("paceline.race.run.run_cells", settle)
    result = race([Toy(str(i)) for i in range(contestants)], [event()], out=tmp_path)
    assert result["seeds"] == list(range(seeds)) and len(result["cells"]) == seeds * contestants
    verdicts = [(pair["verdict"], max(pair["a"], pair["b"])) for pair in result["comparisons"]["recall"]]
    assert (
        verdicts == [(f"{name} is better", name) for _, name in verdicts]
        and len(verdicts) == contestants * (contestants - 1) // 2
    )
    assert result["winner"]["contestant"] == str(contestants - 1)
    assert contestants == 1 or "chance is ruled out" in result["answer"]


@pytest.mark.parametrize(
    ("contestants", "seeds", "words"),
    [
        ([], 1, "needs a contestant"),
        ([Toy("a"), Toy("a")], 1, "each named once"),
        (["ema", "ema()"], 1, "each named once"),
        ([Toy("a")], 0, "at least 1 seed, not 0"),
        ([Toy("a")], [], "at least 1 seed"),
        ([Toy("a")], [3, 3], "each once"),
        ([Toy("a")], [-1, 3], "numbers from 0 on"),
        ([Toy("a")], [1_000_003], "none is 1000003"),
        (["seqbot"], 1, "Did you mean 'seqboat'"),
    ],
)
def test_what_makes_no_race_is_refused(
    contestants: list[Any], seeds: int | list[int], words: str, tmp_path: Path
) -> None:
    with pytest.raises(PacelineError, match=words):
        race(contestants, [event()], out=tmp_path / "race", seeds=seeds)
    assert not (tmp_path / "race").exists()


def test_seeds_can_be_named(tmp_path: Path) -> None:
    result = race([Toy("a")], [event()], out=tmp_path, seeds=range(7, 3, -2))
    assert result["seeds"] == [7, 5] == [cell["seed"] for cell in result["cells"]]


def test_events_of_two_tasks_share_a_race_and_the_first_decides(text: Event, tmp_path: Path) -> None:
    small = Event(Recall(pairs=2, keys=3, values=3, stretch=4, queries=4), tokens=96, parameters=3000, batch=4)
    result = race([Toy("a", settings=(0.3,)), Toy("b", settings=(0.2,))], [small, text], out=tmp_path, seeds=1)
    assert list(result["standings"]) == ["recall", "text"] == [task["name"] for task in result["tasks"]]
    assert result["standings"]["recall"][0]["contestant"] == "b" == result["winner"]["contestant"]
    assert result["standings"]["text"][0]["contestant"] == "a"  # there, less is better
    assert result["winner"]["task"] == "recall"


SCRIPT = """
from pathlib import Path
from paceline.data.recall import Recall
from paceline.race.contestant import Event
from paceline.race.run import race

def main():
    print("ran", flush=True)
    event = Event(Recall(), tokens=2000, parameters=3000, batch=16)
    result = race(["ema(dims=4)"], [event], out=Path("race"), seeds=1)
    print(result["winner"]["contestant"])
"""


def script(folder: Path, end: str) -> subprocess.CompletedProcess[str]:
    (folder / "mine.py").write_text(SCRIPT + end)
    return subprocess.run([sys.executable, "mine.py"], cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_script_without_the_guard_ends_with_a_sentence_and_with_it_races(tmp_path: Path) -> None:
    done = script(tmp_path, "\nmain()\n")
    assert done.returncode == 1 and done.stdout == "ran\n"  # once: no process repeats it
    assert "under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("race/cells/**/*.json"))
    done = script(tmp_path, '\nif __name__ == "__main__":\n    main()\n')
    assert (done.returncode, done.stdout) == (0, "ran\nema(dims=4)\n") and done.stderr == ""
