"""Facts about a cell's record: whole or absent, and a failure is one too."""

import json
import os
from multiprocessing import Pipe

import pytest
from _toys import Divides, Refuses, Toy, grid

from paceline.race.cell import Cell, read_record, run_in_child, write_failure


@pytest.fixture
def cell(tmp_path) -> Cell:
    return next(grid(tmp_path, Toy("rowers"), seeds=(3,)).race())


def live(cell: Cell) -> list[object]:
    """What a cell's process says, lived in this one."""
    ours, theirs = Pipe(duplex=False)
    run_in_child(cell, theirs, 1)
    theirs.close()
    said = []
    while ours.poll():
        try:
            said.append(ours.recv())
        except EOFError:
            break
    return said


def test_a_label_names_contestant_task_and_seed(cell):
    assert cell.label == "rowers on recall, seed 3"


def test_a_cell_that_ends_well_says_so_by_its_record(cell):
    assert live(cell) == ["", (1, 2, 0.75), (2, 2, 0.5)]
    record = read_record(cell)
    assert (record["status"], record["contestant"], record["seed"], record["lr"]) == ("done", "rowers", 3, 0.1)
    assert record["score"] == sum(record["items"]) / len(record["items"])
    assert not cell.job.folder.exists()


@pytest.mark.parametrize("kind", [Refuses, Divides])
def test_a_cell_that_fails_gives_its_reason_and_keeps_its_checkpoints(tmp_path, kind):
    """It is the watching process that settles the failure, because not every end can speak."""
    cell = next(grid(tmp_path, kind()).race())
    loaded, reason = live(cell)
    assert loaded == ""
    assert isinstance(reason, str)
    assert reason.endswith((".", "zero"))
    assert read_record(cell) is None
    assert cell.job.folder.exists()


def test_a_cell_without_a_parent_leaves_no_record(cell, monkeypatch):
    class Left(BaseException):
        pass

    def leave(code):
        raise Left(code)

    monkeypatch.setattr(os, "_exit", leave)
    ours, theirs = Pipe(duplex=False)

    def act(job, report):
        ours.close()
        report(1, 2, 0.5)
        return Toy().act(job, report)

    cell.contestant.act = act
    with pytest.raises(Left) as left:
        run_in_child(cell, theirs, 1)
    assert left.value.args == (1,)
    assert read_record(cell) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"3", b"{}", b'{"status": "running"}', b'{"status": ["done"]}', b"\xff", b'"done"'],
)
def test_a_record_that_is_not_whole_counts_as_none(cell, content):
    cell.record.parent.mkdir(parents=True)
    cell.record.write_bytes(content)
    assert read_record(cell) is None


def test_no_record_and_a_folder_in_its_place_count_as_none(cell):
    assert read_record(cell) is None
    cell.record.mkdir(parents=True)
    assert read_record(cell) is None


def test_a_failure_is_a_record_and_clears_the_checkpoints(cell):
    cell.job.folder.mkdir(parents=True)
    write_failure(cell, "It sank.", 2.5)
    assert read_record(cell) == {
        "task": "recall", "contestant": "rowers", "seed": 3, "lr": 0.1, "status": "failed", "reason": "It sank.",
        "score": None, "ledger": {"tokens": 0, "flops": 0.0, "seconds": 2.5},
    }  # fmt: skip
    assert not cell.job.folder.exists()


def test_a_record_is_written_wholly_or_not_at_all(cell, monkeypatch):
    write_failure(cell, "It sank.", 1.0)
    before = cell.record.read_bytes()

    def stop(*_paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_failure(cell, "It sank again.", 1.0)
    assert cell.record.read_bytes() == before
    assert [path.name for path in cell.record.parent.iterdir()] == [cell.record.name]
    assert json.loads(before)["reason"] == "It sank."
