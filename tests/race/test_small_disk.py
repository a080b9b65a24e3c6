"""A disk that really fills: a file system of a few kilobytes, seen by nobody but the command that runs on it.

Where the system lets nobody mount in private, these tests are skipped and say so.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paceline.cli.events import task_event
from paceline.race.run import race

RUN = """
set -u
mount -t tmpfs -o "$1" none disk || exit 99
shift; cd disk
"$@" >../first.out 2>../first.err; echo $? >../first.code
cp -a out ../first 2>/dev/null
mount -o remount,size=64m,nr_inodes=10000 . || exit 98
"$@" $AGAIN >../second.out 2>../second.err; echo $? >../second.code
cp -a out ../second
"""
CORE = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
ONE_AT_A_TIME = f"import os; os.sched_setaffinity(0, {{{CORE}}}); from paceline.cli import main; main()"
"""A race runs one cell a core: on one core, the first are over when the disk is full."""
COMMAND = (sys.executable, "-c", ONE_AT_A_TIME)
TRAIN = (*COMMAND, "train", "ema", "--text", "../notes.txt", "--tokens", "2048", "--params", "6000", "--batch", "4")
RACE = (*COMMAND, "race", "ema", "--task", "recall(pairs=2, stretch=4)", "--tokens", "2048", "--params", "3000",
        "--seeds", "1")  # fmt: skip


def own_mounts() -> list[str]:
    """How to run a command that may mount for itself alone; skips where the system allows none."""
    tried = "mount -t tmpfs -o size=64k none . && mount -o remount,size=128k ."
    for way in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        if shutil.which("unshare") and not subprocess.run([*way, "sh", "-c", tried], capture_output=True).returncode:
            return way
    pytest.skip("no private mounts here: neither as root (unshare --mount) nor in a user namespace")


def fill(folder: Path, options: str, command: tuple[str, ...], again: str = "") -> tuple[str, str]:
    """Run `command` on a disk of these mount options and, once it has room, with `again`; what each said on stderr.

    What was in `out` after each is then in `folder/first` and `folder/second`.
    """
    draw = random.Random(0)
    (folder / "disk").mkdir()
    (folder / "notes.txt").write_text(" ".join(draw.choice(("a", "quick", "brown", "fox")) for _ in range(4000)))
    script = [*own_mounts(), "sh", "-c", RUN, "sh", options, *command, "--out", "out"]
    done = subprocess.run(script, cwd=folder, env={**ENVIRONMENT, "AGAIN": again}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codes = [int((folder / f"{name}.code").read_text()) for name in ("first", "second")]
    said = tuple((folder / f"{name}.err").read_text() for name in ("first", "second"))
    assert codes == [1, 0] and said[1] == "", said
    assert said[0].startswith("paceline: ") and said[0].count("\n") == 1 and "No space left on device" in said[0]
    return said


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a run that had room from the start; the first run there has no inode for its lock."""
    folder = tmp_path_factory.mktemp("trained")
    said = fill(folder, "size=64m,nr_inodes=2", TRAIN)[0]
    assert "Cannot write to out" in said and "choose another --out" in said
    return folder / "second"


def assert_same_model(mine: Path, other: Path) -> None:
    for name in ("model.safetensors", "config.json", "checksums.json"):
        assert (mine / name).read_bytes() == (other / name).read_bytes()
    facts = [json.loads((folder / "training.json").read_text()) for folder in (mine, other)]
    assert facts[0]["curve"] == facts[1]["curve"] and facts[0]["score"] == facts[1]["score"]
    assert sorted(path.name for path in mine.iterdir()) == sorted(path.name for path in other.iterdir())


@pytest.mark.parametrize(
    ("size", "says", "left"),
    [
        ("16k", "cannot take the corpus", []),
        ("64k", "Cannot write out/checkpoints/step-", []),
        ("144k", "Cannot write out (", ["step-0000000002"]),
    ],
)
def test_training_on_a_full_disk_goes_on_when_there_is_room(
    size: str, says: str, left: list[str], trained: Path, tmp_path: Path
) -> None:
    said = fill(tmp_path, f"size={size}", TRAIN, "--resume")[0]
    assert says in said and ("make room" in said or "check space" in said)
    assert [path.name for path in (tmp_path / "first").glob("checkpoints/*")] == left
    assert_same_model(tmp_path / "second", trained)


def test_a_race_on_a_full_disk_keeps_its_records_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    said = fill(tmp_path, "size=80k", RACE)[0]
    assert "The disk takes no more of ema on recall" in said and "make room" in said
    first, second = ({p.relative_to(tmp_path / n): (p.stat().st_mtime_ns, p.read_bytes())
                      for p in (tmp_path / n).glob("cells/**/*.json")} for n in ("first", "second"))  # fmt: skip
    assert first and len(second) == 4 and first.items() <= second.items()  # nothing was done twice
    assert {json.loads(content)["status"] for _, content in second.values()} == {"done"}
    assert not list((tmp_path / "first").glob("**/result.json")) and (tmp_path / "second" / "winner").is_dir()

    mine = json.loads((tmp_path / "second" / "result.json").read_text())
    other = race(["ema"], [task_event("recall(pairs=2, stretch=4)", 2048, 3000)], out=tmp_path / "whole", seeds=1)
    for key in ("answer", "standings", "comparisons"):
        assert mine[key] == other[key]
    assert [c["items"] for c in mine["cells"]] == [c["items"] for c in other["cells"]]
