"""A race that is killed or stopped goes on where it was, and ends as if nothing had happened."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from _command import TINY, Call, load, records, scores, start, times

from paceline.cli.events import task_event
from paceline.race.run import race

TASK = "recall(pairs=2, stretch=4)"
RACE = ("race", "ema", "attention", "--task", TASK, *TINY, "--seeds", "2", "--out", "out")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same race without interruption, called from Python."""
    out = tmp_path_factory.mktemp("whole") / "out"
    race(["ema", "attention"], [task_event(TASK, 2048, 3000)], out=out, seeds=2)
    return out


def run_until(cells: int, folder: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Begin the race, or go on with it, until so many cells are over; it, and the processes that it then has."""
    process = start(*RACE, cwd=folder)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"cell {cells} of"):
            break
    family = psutil.Process(process.pid).children(recursive=True)
    assert family  # still racing
    return process, family


def assert_stopped(process: subprocess.Popen[str], family: list[psutil.Process], folder: Path) -> None:
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "Stopped. Finished cells are kept in out: the same command goes on from there." in said.splitlines()
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert gone and not alive
    assert {record["status"] for record in records(folder / "out").values()} == {"done"}
    assert not (folder / "out" / "result.json").exists()


def test_a_race_stopped_and_then_killed_is_finished_by_the_same_command(
    whole: Path, tmp_path: Path, call: Call
) -> None:
    out, expected = tmp_path / "out", records(whole)
    process, family = run_until(2, tmp_path)
    process.send_signal(signal.SIGINT)
    assert_stopped(process, family, tmp_path)
    stopped = times(out)
    assert 2 <= len(stopped) < len(expected)

    process, family = run_until(len(stopped) + 2, tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    psutil.wait_procs(family, timeout=30)
    killed = times(out)
    assert len(stopped) + 2 <= len(killed) < len(expected) and not (out / "result.json").exists()

    answer = call(*RACE)  # tmp_path is the current folder
    finished = times(out)
    assert (answer.code, answer.err) == (0, "")
    assert stopped.items() <= killed.items() <= finished.items()  # nothing was done twice
    assert scores(out) == scores(whole)
    mine, other = load(out / "result.json"), load(whole / "result.json")
    for key in ("standings", "comparisons", "answer"):
        assert mine[key] == other[key]
    assert [cell["items"] for cell in mine["cells"]] == [cell["items"] for cell in other["cells"]]
    assert not list(out.glob("checkpoints/**/*.*"))


def test_ctrl_c_in_a_terminal_reaches_every_process_and_leaves_none(tmp_path: Path) -> None:
    process, family = run_until(2, tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    assert_stopped(process, family, tmp_path)


def test_a_stop_while_the_text_is_read_leaves_no_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("paceline.cli.events.read_documents", stop)
    answer = call("race", "ema", "--text", "notes.txt", "--out", "out")
    assert answer.code == 130 and "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (("--tokens", "4096"), "tokens"),
        (("--params", "4000"), "parameters"),
        (("--seeds", "3"), "seeds"),
        (("--task", "recall(pairs=3, stretch=4)"), "tasks"),
        (("--task", "induction"), "tasks"),
        (("lightning",), "contestants"),
    ],
)
def test_a_folder_of_another_race_is_refused_and_what_differs_is_named(
    other: tuple[str, ...], words: str, whole: Path, call: Call
) -> None:
    shutil.copytree(whole, "out")
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    answer = call(*RACE, *other)
    assert answer.code == 1 and f"paceline: out holds another race ({words}" in answer.err
    assert "choose another --out" in answer.err and answer.err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


def test_a_race_on_another_text_of_the_same_size_is_another_race(call: Call) -> None:
    Path("other.txt").write_bytes(Path("notes.txt").read_bytes()[::-1])
    race = ("race", "ema", *TINY, "--params", "6000", "--seeds", "1", "--out", "out", "--text")
    assert call(*race, "notes.txt").code == 0
    before = times(Path("out"))
    answer = call(*race, "other.txt")
    assert answer.code == 1 and "out holds a run on another text" in answer.err
    assert times(Path("out")) == before and call(*race, "notes.txt").code == 0


def test_a_broken_race_file_is_named(whole: Path, call: Call) -> None:
    shutil.copytree(whole, "out")
    Path("out/race.json").write_text('{"contestants": ')
    answer = call(*RACE)
    assert answer.code == 1 and "out/race.json cannot be read" in answer.err
    assert records(Path("out")) == records(whole)
