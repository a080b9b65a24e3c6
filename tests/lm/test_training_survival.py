"""Facts about training that meets trouble: killed at any moment, damaged files, a full disk, a clock that jumps."""

import errno
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from _tiny import model, recall, same

from paceline.core.errors import PacelineError
from paceline.core.lock import NAME, hold
from paceline.lm.train import Recipe, train

STEPS = 16


def run(folder, save_seconds=0.0):
    lm = model("ema")
    return lm, train(lm, recall(), Recipe(tokens=STEPS * 4 * 12, batch=4), 1, folder=folder, save_seconds=save_seconds)


def live(folder) -> None:
    """The life of a process that will be killed."""
    torch.set_num_threads(1)
    run(folder)


def test_three_kills_at_random_moments_change_no_bit(tmp_path):
    """Also in the middle of a save, for it saves after each step."""
    context, draw, killed = multiprocessing.get_context("forkserver"), random.Random(3), 0
    context.set_forkserver_preload(["paceline.race.cell"])
    while killed < 3:
        process = context.Process(target=live, args=(tmp_path / "run",), daemon=True)
        process.start()
        before = set((tmp_path / "run").glob("step-*"))
        while process.is_alive() and set((tmp_path / "run").glob("step-*")) == before:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.2)
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:  # it came to its end: another run
            (tmp_path / "run").rename(tmp_path / f"done-{len(os.listdir(tmp_path))}")
        killed += process.exitcode == -signal.SIGKILL
    whole, trained = run(None)
    resumed, other = run(tmp_path / "run")
    assert same(whole, resumed)
    assert trained.curve == other.curve


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flips(content: bytes) -> list[bytes]:
    """The content with one byte changed, at its ends and at random places."""
    draw, changed = random.Random(len(content)), []
    for place in (0, len(content) - 2, *(draw.randrange(len(content)) for _ in range(6))):
        changed.append(content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :])
    return changed


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ended") / "run"
    return run(folder)[0], folder


@pytest.mark.parametrize("name", ["training.json", "training.safetensors", "checksums.json"])
def test_a_damaged_checkpoint_is_never_continued_from(ended, name):
    """It goes on from the one before; where a flip changed only white space, both tell the same."""
    whole, folder = ended
    path = max(folder.glob("step-*")) / name
    content = path.read_bytes()
    for damaged in (half(content), b"", *flips(content)):
        path.write_bytes(damaged)
        assert same(run(folder)[0], whole)
        path.write_bytes(content)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(tmp_path, monkeypatch):
    whole, sync, calls = run(None)[0], os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(PacelineError, match=r"Cannot write .*step-\d+ \(No space left on device\): make room"):
            run(tmp_path)
    assert list(tmp_path.glob("step-*"))
    assert same(run(tmp_path)[0], whole)


def test_a_clock_that_jumps_changes_no_duration(tmp_path, monkeypatch):
    jumps = iter(range(10**9, 0, -(10**5)))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    assert 0 < run(tmp_path, save_seconds=1e9)[1].ledger.seconds < 60


def occupy(folder, pipe) -> None:
    with hold(folder, "run"):
        pipe.send("mine")
        time.sleep(60)


def test_a_folder_in_use_is_refused_and_free_when_its_process_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("paceline.core.lock.PATIENCE", 0.0)
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=occupy, args=(tmp_path / "out", theirs), daemon=True)
    process.start()
    assert ours.recv() == "mine"
    sentence = rf"out is in use by another run \(process {process.pid}, or one that it started\): wait until it ends"
    with pytest.raises(PacelineError, match=sentence), hold(tmp_path / "out", "run"):
        pass
    process.kill()
    process.join()
    with hold(tmp_path / "out", "run"):
        assert (tmp_path / "out" / NAME).read_text() == str(os.getpid())
    assert list((tmp_path / "out").iterdir()) == []


def leave_a_child(folder, pipe) -> None:
    with hold(folder, "run"):
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
        pipe.send("mine")
        time.sleep(60)


def test_what_a_killed_process_left_in_the_folder_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("paceline.core.lock.PATIENCE", 0.0)
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=leave_a_child, args=(tmp_path, theirs), daemon=True)
    process.start()
    assert ours.recv() == "mine"
    process.kill()
    process.join()
    with hold(tmp_path, "run"):
        assert (tmp_path / NAME).read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(PacelineError, match=r"Cannot write to .*: choose another --out\."), hold(folder, "run"):
            pass
