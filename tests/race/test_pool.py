"""Facts about cells in processes: whatever one does, it leaves one record and does not touch the others."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from _toys import (
    CurveNotANumber,
    Divides,
    Eats,
    Exits,
    Faults,
    Killed,
    NoItems,
    NotANumber,
    OutOfMemory,
    Quits,
    Rambles,
    Refuses,
    Sleeps,
    Toy,
    Unloadable,
    grid,
)

import paceline
from paceline.core.errors import PacelineError
from paceline.race.cell import read_record
from paceline.race.pool import Limits, default_limits, run_cells

ROOM = 2**34
TEMPERS = {
    Refuses: r"The sea is too rough: wait for calm\.",
    Divides: r"It crashed: ZeroDivisionError: division by zero",
    Rambles: r"It crashed: ValueError: line one line two and so on .{200,300}",
    OutOfMemory: r"It ran out of memory\.",
    Exits: r"Its process ended with code 3 and no result\.",
    Quits: r"Its process ended with code 0 and no result\.",
    Faults: r"Its process was killed by SIGSEGV\.",
    Killed: r"Its process was killed by SIGKILL \(out of memory\?\)\.",
    NotANumber: r"The scores are not finite\.",
    NoItems: r"The scores are not finite\.",
    CurveNotANumber: r"It crashed: ValueError: .*",
}


def silent(*_words) -> None:
    pass


def run(cells, workers=2, watch=silent, **limits):
    return list(run_cells(list(cells), Limits(workers, memory=ROOM, **limits), watch))


def records(folder: Path) -> set[str]:
    return {str(path.relative_to(folder / "cells" / "recall")) for path in folder.rglob("*") if path.is_file()
            and "cells" in path.parts}  # fmt: skip


@pytest.fixture(scope="module")
def ship(tmp_path_factory):
    """One race of all tempers, a good contestant before, between and after them."""
    folder = tmp_path_factory.mktemp("ship")
    crew = [Toy("first"), *(kind(kind.__name__) for kind in TEMPERS), Toy("last")]
    crew.insert(6, Toy("middle"))
    cells, told = list(grid(folder, *crew).race()), []
    yielded = run(cells, workers=3, watch=lambda cell, *words: told.append((cell.contestant.name, *words)))
    return folder, {cell.contestant.name: cell for cell in cells}, yielded, told


def test_every_cell_is_yielded_once_and_leaves_one_record(ship):
    folder, cells, yielded, _ = ship
    assert sorted(cell.contestant.name for cell in yielded) == sorted(cells)
    assert records(folder) == {str(cell.record.relative_to(folder / "cells" / "recall")) for cell in cells.values()}


@pytest.mark.parametrize("kind", TEMPERS)
def test_a_cell_that_fails_says_why_in_one_sentence(ship, kind):
    cell = ship[1][kind.__name__]
    record = read_record(cell)
    assert re.fullmatch(TEMPERS[kind], record["reason"])
    assert (record["status"], record["score"], record["seed"]) == ("failed", None, 0)
    assert record["contestant"] == kind.__name__
    assert record["ledger"]["seconds"] >= 0
    assert not cell.job.folder.exists()


@pytest.mark.parametrize("name", ["first", "middle", "last"])
def test_the_others_are_not_affected(ship, name):
    cell = ship[1][name]
    nothing = {"flops": 0.0, "seconds": 0.0, "model_calls": 0, "parameters": 0, "state_bytes": 0, "peak_bytes": 0}
    assert read_record(cell) == {
        "task": "recall", "contestant": name, "seed": 0, "lr": 0.1, "status": "done", "reason": None,
        "score": pytest.approx(0.7), "items": [0.5, 0.9], "curve": [[48, 0.75], [96, 0.5]],
        "meters": {"activated.0": 0.25}, "trace": None,
        "ledger": {"tokens": 96, **nothing}, "evaluation": {"tokens": 0, **nothing},
    }  # fmt: skip
    assert not cell.job.folder.exists()


def test_progress_arrives_in_order(ship):
    assert [words for name, *words in ship[3] if name == "middle"] == [[1, 2, 0.75], [2, 2, 0.5]]


def test_cells_that_are_none_or_done_start_no_server(ship, monkeypatch):
    """It would have loaded what they need, not what those that follow in this process do."""
    monkeypatch.setattr("paceline.race.pool.forkserver.ensure_running", lambda: pytest.fail("a server was started"))
    assert run([]) == [] == run(ship[1].values())


def test_a_cell_beyond_its_time_is_stopped_and_the_others_are_not(tmp_path):
    cells = list(grid(tmp_path, Sleeps("slow"), Toy("a"), Toy("b")).race())
    run(cells, seconds=1.0)
    assert read_record(cells[0])["reason"] == "It was stopped after 1 seconds, the limit of a cell."
    assert [read_record(cell)["status"] for cell in cells] == ["failed", "done", "done"]


def test_a_cell_beyond_its_memory_is_stopped_and_the_others_are_not(tmp_path):
    cells = list(grid(tmp_path, Eats("glutton"), Toy("a"), Toy("b")).race())
    most = psutil.Process().memory_info().rss + 150 * 2**20  # this process has loaded no less than a cell's
    list(run_cells(cells, Limits(2, memory=most), silent))
    sentence = r"It was stopped at \d\.\d GiB, above the limit of \d\.\d GiB for a cell\."
    assert re.fullmatch(sentence, read_record(cells[0])["reason"])
    assert [read_record(cell)["status"] for cell in cells] == ["failed", "done", "done"]


def test_without_a_limit_of_memory_cells_share_the_machine(tmp_path, monkeypatch):
    class Small:
        total = 2 * psutil.Process().memory_info().rss + 2 * 150 * 2**20

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Small)
    (cell,) = grid(tmp_path, Eats("glutton")).race()
    list(run_cells([cell], Limits(2), silent))
    assert "above the limit" in read_record(cell)["reason"]
    assert default_limits().memory == int(0.9 * Small.total / default_limits().workers)


def marks(folder: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in folder.iterdir())


def test_recorded_cells_are_not_run_again_and_broken_records_are(tmp_path):
    (tmp_path / "marks").mkdir()
    crew = [kind(kind.__name__, marks=tmp_path / "marks") for kind in (Toy, Refuses)]
    cells = list(grid(tmp_path / "race", *crew, seeds=(0, 1, 2)).race())
    run(cells)
    assert marks(tmp_path / "marks") == ["Refuses"] * 3 + ["Toy"] * 3
    assert run(cells) == []
    assert len(marks(tmp_path / "marks")) == 6
    toys = [cell for cell in cells if cell.contestant.name == "Toy"]
    whole = toys[0].record.read_text()
    toys[0].record.write_text(whole[: len(whole) // 2])
    toys[1].record.write_text(json.dumps({**json.loads(whole), "status": "running"}))
    toys[2].record.unlink()
    assert {cell.job.seed for cell in run(cells)} == {0, 1, 2}
    assert marks(tmp_path / "marks") == ["Refuses"] * 3 + ["Toy"] * 6
    assert toys[0].record.read_text() == whole


def alive(folder: Path, name: str) -> int | None:
    """The process that is running this contestant, as it said itself; waits until it did."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for path in folder.glob(f"{name}.*"):
            return int(path.name.split(".")[1])
        time.sleep(0.01)
    return None


def hears_no_interrupt(process: int) -> bool:
    """Whether SIGINT is blocked there from the first moment on: before it has loaded anything it would only die."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():  # not on Linux
        return True
    return bool(int(re.search(r"SigBlk:\s*(\w+)", status.read_text())[1], 16) >> (signal.SIGINT - 1) & 1)


def gone(process: int) -> bool:
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


def test_closing_early_kills_the_processes_and_keeps_the_finished_records(tmp_path):
    (tmp_path / "marks").mkdir()
    crew = [Toy("quick"), Sleeps("slow", marks=tmp_path / "marks"), Toy("never")]
    cells = list(grid(tmp_path / "race", *crew).race())
    running = run_cells(cells, Limits(2, memory=ROOM), silent)
    assert next(running) is cells[0]
    process = alive(tmp_path / "marks", "slow")
    running.close()
    assert gone(process)
    assert [read_record(cell) is not None for cell in cells] == [True, False, False]
    assert cells[1].job.folder.exists()  # its checkpoints wait for the next time


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, BrokenPipeError, RuntimeError])
def test_trouble_in_the_watcher_ends_the_race_and_its_processes(tmp_path, trouble):
    """Also where the progress cannot be printed any more, which is no fault of the cell."""
    (tmp_path / "marks").mkdir()

    def watch(*_words):
        raise trouble

    cells = list(grid(tmp_path / "race", Sleeps("slow", marks=tmp_path / "marks")).race())
    with pytest.raises(trouble):
        run(cells, watch=watch)
    assert gone(alive(tmp_path / "marks", "slow"))
    assert read_record(cells[0]) is None


def test_a_contestant_that_does_not_pickle_is_named(tmp_path):
    stowaway = Toy("stowaway")
    stowaway.act = lambda job, report: None
    with pytest.raises(PacelineError, match="stowaway cannot cross into another process"):
        run(grid(tmp_path, stowaway).race())
    assert not (tmp_path / "cells").exists()


def test_a_contestant_that_no_process_can_load_leaves_no_record(tmp_path):
    """It is no fault of the method, and must not be taken for its result when the race goes on."""
    with pytest.raises(PacelineError, match="cannot load ghost"):
        run(grid(tmp_path, Unloadable("ghost")).race())
    assert not (tmp_path / "cells").exists()


SCRIPT = """
import signal
import sys
from pathlib import Path
from _toys import Sleeps, Toy, grid
from paceline.race.pool import Limits, run_cells

class Mine(Toy):
    pass

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
    folder = Path(sys.argv[1])
    crew = [Mine("mine"), Sleeps("slow", marks=folder), Sleeps("idle", marks=folder)]
    for cell in run_cells(list(grid(folder / "race", *crew).race()), Limits(2, memory=2**34), print):
        print("finished", cell.contestant.name, flush=True)
"""


def test_ctrl_c_in_a_terminal_ends_all_processes_and_blames_no_cell(tmp_path):
    """The signal goes to the whole group, so the cells get it too. The first contestant is defined in the script."""
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    paths = [str(Path(paceline.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(
        [sys.executable, script, tmp_path], env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        said = next(line for line in process.stdout if line.startswith("finished"))
        cells = [alive(tmp_path, "slow"), alive(tmp_path, "idle")]
        deaf = [hears_no_interrupt(cell) for cell in cells]
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert said == "finished mine\n" and all(deaf)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1  # the cells say nothing
    assert all(gone(cell) for cell in cells)
    assert records(tmp_path / "race") == {"mine/race-0-0.1.json"}


PRINTING = """
import sys
from pathlib import Path

from _toys import Prints, grid

from paceline.race.pool import Limits, run_cells

if __name__ == "__main__":
    cells = list(grid(Path(sys.argv[1]), Prints()).race())
    print(len(list(run_cells(cells, Limits(1, memory=2**34), lambda *_: None))))
"""


def test_what_a_cell_prints_stays_out_of_the_answer(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PRINTING)
    paths = [str(Path(paceline.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "race"], env=environment, text=True, capture_output=True, check=True
    )
    assert ended.stdout == "1\n" and "look at me" in ended.stderr
