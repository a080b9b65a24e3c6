"""Facts about a race that meets trouble: killed at any moment, two in one folder, damaged files, a full disk."""

import errno
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from _toys import Forks, Full, Sleeps, Slow, Toy, event, grid

from paceline.core.errors import PacelineError
from paceline.lm.checkpoint import load_model
from paceline.race.cell import read_record
from paceline.race.contestant import Model
from paceline.race.pool import Limits, run_cells
from paceline.race.run import race

LIMITS = Limits(2, memory=2**34)
CONTEXT = multiprocessing.get_context("forkserver")
CLOCK = ("created", "seconds", "peak_bytes", "sha256")


def timeless(value):
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in CLOCK}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def records(out: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.glob("cells/**/*.json")}


def gone(process: int) -> bool:
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


def until(true, seconds=30.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def slow_race(out: Path, marks: Path) -> dict:
    crew = [Slow("a", settings=(0.1, 0.2), marks=marks), Slow("b", marks=marks)]
    return race(crew, [event()], out=out, seeds=3, limits=LIMITS)


def begin(target, *args) -> multiprocessing.process.BaseProcess:
    """In a process that can be killed, and is let have children."""
    CONTEXT.set_forkserver_preload(["paceline.race.run"])
    process = CONTEXT.Process(target=target, args=args)
    process.start()
    return process


def test_four_kills_of_a_race_lose_nothing_and_no_cell_runs_again(tmp_path):
    out, marks, draw = tmp_path / "out", tmp_path / "marks", random.Random(1)
    marks.mkdir()
    for kill in range(4):
        known = records(out)
        process = begin(slow_race, out, marks)
        assert until(lambda number=1 + kill * 3 // 2: len(records(out)) >= number)
        time.sleep(draw.random() * 0.3)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL and not (out / "result.json").exists()
        assert not psutil.wait_procs(family, timeout=10)[1]
        assert known.items() <= records(out).items()
    known, runs = records(out), sorted(marks.iterdir())
    result = slow_race(out, marks)
    assert known.items() <= records(out).items() and len(records(out)) == 8
    assert len(list(marks.iterdir())) == len(runs) + 8 - len(known)
    (tmp_path / "again").mkdir()
    whole = slow_race(tmp_path / "whole", tmp_path / "again")
    where = {"winner": None}  # it names its folder
    assert timeless({**result, **where}) == timeless({**whole, **where})
    assert result["bill"]["race"]["tokens"] == 6 * 96 and result["bill"]["tuning"]["tokens"] == 2 * 96


def test_a_second_race_in_the_folder_is_refused_while_cells_of_the_first_live(tmp_path, monkeypatch):
    """Even after the first was killed; but its cells notice and leave, so that waiting a moment is enough."""
    marks, out = tmp_path / "marks", tmp_path / "out"
    marks.mkdir()
    process = begin(slow_race, out, marks)
    assert until(lambda: list(marks.iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr("paceline.core.lock.PATIENCE", 0.0)
        with pytest.raises(PacelineError, match=rf"out is in use by another race \(process {process.pid}, or one"):
            slow_race(out, marks)
    cell = psutil.Process(int(next(marks.iterdir()).name.split(".")[1]))
    process.kill()
    process.join()
    known = records(out)
    result = slow_race(out, marks)
    assert gone(cell.pid) and {c["status"] for c in result["cells"]} == {"done"}
    assert known.items() <= records(out).items()
    assert not (out / ".lock").exists()


@pytest.mark.parametrize("kind", [Forks, Sleeps])
def test_what_a_cell_starts_ends_with_it(tmp_path, kind):
    """One cell ends by itself with a child still running; the other hangs past its time, its child too."""
    (tmp_path / "marks").mkdir()
    cells = list(grid(tmp_path / "race", kind("parent", marks=tmp_path / "marks")).race())
    list(run_cells(cells, Limits(1, memory=2**34, seconds=2.0), lambda *_: None))
    numbers = [int(path.name.split(".")[1]) for path in (tmp_path / "marks").iterdir()]
    assert len(numbers) == (2 if kind is Forks else 1)
    assert until(lambda: all(map(gone, numbers)), 5.0)
    assert read_record(cells[0])["status"] == ("done" if kind is Forks else "failed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A race of one small model, and its result."""
    out = tmp_path_factory.mktemp("finished") / "out"
    return out, tiny_race(out)


def tiny_race(out: Path) -> dict:
    return race([Model("ema", layers=1, rates=(1e-2,))], [event()], out=out, seeds=1, limits=LIMITS)


def harms(content: bytes) -> list[bytes]:
    draw = random.Random(len(content))
    places = [0, *(draw.randrange(len(content)) for _ in range(3))]
    flipped = [content[:p] + bytes([content[p] ^ (1 << draw.randrange(8))]) + content[p + 1 :] for p in places]
    return [content[: len(content) // 2], b"", *flipped]


def test_a_damaged_record_is_run_again_to_the_same_end(finished):
    out, result = finished
    (path,) = out.glob("cells/**/*.json")
    content = path.read_bytes()
    for damaged in harms(content)[:3]:
        path.write_bytes(damaged)
        again = tiny_race(out)
        assert timeless(again) == timeless(result)
        assert timeless(json.loads(path.read_bytes())) == timeless(json.loads(content))


def test_no_flip_in_a_record_is_believed(tmp_path):
    """Each byte of it in turn: what is read is what was written, or nothing."""
    (cell,) = grid(tmp_path, Toy()).race()
    list(run_cells([cell], LIMITS, lambda *_: None))
    whole, content = read_record(cell), cell.record.read_bytes()
    for place in range(len(content)):
        cell.record.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        assert read_record(cell) in (None, whole)


def test_a_damaged_race_json_is_refused_in_a_sentence(finished):
    out, _ = finished
    content = (out / "race.json").read_bytes()
    for damaged in harms(content):
        (out / "race.json").write_bytes(damaged)
        with pytest.raises(PacelineError, match=r"race\.json cannot be read|is not a race's|holds another race"):
            tiny_race(out)
    (out / "race.json").write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "checksums.json"])
def test_a_damaged_winner_is_refused_and_kept_anew(finished, name):
    out, _ = finished
    path = out / "winner" / name
    content = path.read_bytes()
    for damaged in harms(content):
        path.write_bytes(damaged)
        with pytest.raises(PacelineError):
            load_model(out / "winner")
    tiny_race(out)
    assert path.read_bytes() == content
    load_model(out / "winner")


def test_a_kill_while_the_winner_is_replaced_does_not_lock_the_race_out(finished, monkeypatch):
    out, _ = finished

    class Dead(BaseException):
        pass

    real = os.replace

    def die(source, target):  # the old one is moved away by then
        if Path(target) == out / "winner":
            raise Dead
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(Dead):
            tiny_race(out)
    assert not (out / "winner").exists()
    tiny_race(out)
    load_model(out / "winner")


def test_a_full_disk_in_a_cell_is_one_sentence_and_blames_no_contestant(tmp_path):
    room = tmp_path / "room"
    crew = [Toy("good"), Full("full", marks=room)]
    for _ in range(2):
        with pytest.raises(PacelineError, match=r"takes no more of full on recall, seed 0 \(No space left on device\)"):
            race(crew, [event()], out=tmp_path / "out", seeds=1, limits=Limits(1, memory=2**34))
        assert [path.parent.name for path in records(tmp_path / "out")] == ["good"]
    known = records(tmp_path / "out")
    room.mkdir()
    result = race(crew, [event()], out=tmp_path / "out", seeds=1, limits=LIMITS)
    assert {c["status"] for c in result["cells"]} == {"done"} and known.items() <= records(tmp_path / "out").items()


def test_a_full_disk_at_the_end_keeps_the_cells(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("paceline.race.run.write_json", full)
        with pytest.raises(OSError, match="No space left"):  # the command line makes a sentence of it
            tiny_race(tmp_path / "out")
    known = records(tmp_path / "out")
    assert tiny_race(tmp_path / "out")["cells"] and records(tmp_path / "out") == known


def test_a_clock_that_jumps_stops_no_cell(tmp_path, monkeypatch):
    jumps = iter(range(10**9, 0, -(10**5)))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    (cell,) = grid(tmp_path, Slow("slow")).race()
    list(run_cells([cell], Limits(1, memory=2**34, seconds=30.0), lambda *_: None))
    assert read_record(cell)["status"] == "done"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "out", Path("/proc/nowhere")):
        if not out.is_relative_to("/proc") or Path("/proc").exists():
            with pytest.raises(PacelineError, match=r"Cannot write to .*: choose another --out\."):
                tiny_race(out)
