"""Kill `paceline train` and `paceline race` again and again, and see that nothing is lost, changed or done twice.

    python stress/kills.py [--kills 200] [--seed 0]

Each run is the real command on a tiny text or task, in a process of its own that begins with torch loaded, or most of
the time would go there. It gets SIGKILL (it alone, or its whole group of processes) at a random moment after it has
taken its folder, is started again and killed again until it ends by itself. Then its weights must be bit for bit those
of a run that nobody interrupted, and a race's result the same but for what a clock or the memory tells. A record that
was there must stay as it was, so its cell did not run again; and the cells that a killed race left must be gone within
seconds. Writes results/survival.json. Under ten minutes on 2 cores.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess as Life
from pathlib import Path
from typing import Any

import psutil
from rich.progress import Progress

from paceline.core.files import write_json
from paceline.race.result import environment

ROOT = Path(__file__).parents[1]
TRAIN = ("train", "ema(dims=4)", "--text", "text.txt", "--tokens", "32768", "--params", "6000", "--length", "32",
         "--batch", "4", "--out", "out")  # fmt: skip
RACE = ("race", "ema", "attention", "--task", "recall(pairs=2, stretch=4)", "--tokens", "2048", "--params", "3000",
        "--seeds", "2", "--out", "out")  # fmt: skip
CLOCK = ("created", "seconds", "peak_bytes", "sha256")
"""What two runs of the same thing may differ in; the last because it covers the others."""
PROCESSES = multiprocessing.get_context("forkserver")


@dataclass
class Tally:
    """What happened in all runs of one command."""

    kills: int = 0
    runs: int = 0
    failures: list[str] = field(default_factory=list)
    longest_left: float = 0.0
    """Seconds that a cell of a killed race lived on."""


def live(folder: Path, command: tuple[str, ...]) -> None:
    """The life of a process: `paceline ...` in `folder`, but `train` saves after every step, not every 20 seconds."""
    from paceline.cli import main
    from paceline.cli import train as module

    os.setsid()
    os.chdir(folder)
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["paceline", *command]
    whole = module.train
    module.train = lambda *args, **options: whole(*args, **{**options, "save_seconds": 0.0})  # type: ignore[assignment]
    main()


def begin(folder: Path, command: tuple[str, ...]) -> Life:
    """The command in `folder`, in a group of processes of its own."""
    process = PROCESSES.Process(target=live, args=(folder, command))
    process.start()
    return process


def records(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The cells that are over: when each was written, and what."""
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.glob("out/cells/**/*.json")}


def kill(process: Life, folder: Path, draw: random.Random, span: float, tally: Tally) -> bool:
    """Kill the process up to `span` seconds after it took its folder; False if it had ended by then."""
    lock = folder / "out" / ".lock"
    while process.is_alive() and not (lock.exists() and lock.read_text() == str(process.pid)):
        time.sleep(0.01)
    process.join(draw.random() * span)
    try:
        servers = psutil.Process(process.pid).children()  # write nothing; one may be loading torch
        cells = [cell for server in servers for cell in server.children()]
    except psutil.NoSuchProcess:
        return False
    if draw.random() < 0.5:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    began = time.monotonic()
    _, alive = psutil.wait_procs(cells, timeout=10)
    tally.longest_left = max(tally.longest_left, time.monotonic() - began)
    if alive:
        tally.failures.append(f"{len(alive)} cells of a killed race live on")
    tally.kills += 1
    return True


def survive(
    folder: Path, command: tuple[str, ...], span: float, draw: random.Random, most: int, tally: Tally, advance: Any
) -> None:
    """One run from its first start to its own end, however often it is killed before."""
    known: dict[str, tuple[int, bytes]] = {}
    resume: tuple[str, ...] = ()
    while not (folder / "out" / "training.json").exists():  # killed after its last word it is finished
        process = begin(folder, (*command, *resume))
        killed = tally.kills < most and kill(process, folder, draw, span, tally)
        process.join()
        now = records(folder)
        tally.failures += [f"{place} changed" for place, record in known.items() if now.get(place) != record]
        known = now
        if not killed:
            if process.exitcode != 0:
                tally.failures.append(
                    f"exit code {process.exitcode}: {(folder / 'said').read_text().splitlines()[-1:]}"
                )
            break
        advance()
        resume = ("--resume",) if command is TRAIN else ()
    tally.runs += 1


def timeless(value: Any) -> Any:
    """The value without what a clock or the memory tells."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in CLOCK}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def compare(one: Path, other: Path) -> list[str]:
    """In what the two folders of a run differ, where they must not."""
    wrong = []
    names = {
        str(p.relative_to(f)) for f in (one, other) for p in f.glob("out/**/*") if p.suffix in (".json", ".safetensors")
    }
    for name in sorted(name for name in names if not any(part.startswith(".") for part in Path(name).parts)):
        left, right = one / name, other / name
        if not (left.exists() and right.exists()):
            wrong.append(f"{name} is in one of them only")
        elif name.endswith(".safetensors") and left.read_bytes() != right.read_bytes():
            wrong.append(f"{name} has other bits")
        elif name.endswith(".json") and timeless(json.loads(left.read_text())) != timeless(
            json.loads(right.read_text())
        ):
            wrong.append(f"{name} says other things")
    return wrong


def torture(
    work: Path, command: tuple[str, ...], kills: int, seed: str, span: float, advance: Callable[[], None]
) -> Tally:
    """Runs of the command until so many kills are done, each compared with one that nobody interrupted."""
    tally, text = Tally(), " ".join(random.Random(0).choices(["a", "boat", "on", "the", "sea"], k=4000))

    def fresh(name: str) -> Path:
        folder = work / command[0] / name
        folder.mkdir(parents=True)
        (folder / "text.txt").write_text(text)
        return folder

    whole = fresh("whole")
    first = begin(whole, command)
    first.join()
    if first.exitcode != 0:
        raise SystemExit((whole / "said").read_text())
    while tally.kills < kills:
        folder, failed = fresh(str(tally.runs)), len(tally.failures)
        survive(folder, command, span, random.Random(f"{seed} {tally.runs}"), kills, tally, advance)
        if len(tally.failures) == failed:  # one that broke off differs in everything
            tally.failures += [f"run {folder.name}: {difference}" for difference in compare(whole, folder)]
    return tally


def main() -> None:
    """Both commands side by side, then the file and the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all, three quarters of them of `train`")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    PROCESSES.set_forkserver_preload(["__main__", "paceline.cli.train", "paceline.cli.race"])
    of_race = given.kills // 4
    began = time.monotonic()
    memory = (
        "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    )  # a kill, unlike a power cut, does not test the disk
    with (
        tempfile.TemporaryDirectory(dir=memory) as work,
        Progress(transient=True) as bars,
        ThreadPoolExecutor() as pool,
    ):
        line = bars.add_task("kills", total=given.kills)
        jobs = [
            pool.submit(
                torture, Path(work), command, kills, f"{given.seed} {command[0]}", span, lambda: bars.advance(line)
            )
            for command, kills, span in ((TRAIN, given.kills - of_race, 0.8), (RACE, of_race, 6.0))
        ]
        train, race = (job.result() for job in jobs)
    failures = [f"train: {text}" for text in train.failures] + [f"race: {text}" for text in race.failures]
    answer = {
        "kills": {"train": train.kills, "race": race.kills},
        "runs": {"train": train.runs, "race": race.runs},
        "failures": failures,
        "seconds_that_cells_outlived_a_killed_race": round(race.longest_left, 2),
        "seconds": round(time.monotonic() - began),
        "seed": given.seed,
        "environment": environment(),
    }
    write_json(ROOT / "results" / "survival.json", answer)
    print(
        f"{train.kills + race.kills} kills over {train.runs + race.runs} runs in {answer['seconds']} s: "
        f"{len(failures)} failures{': ' + '; '.join(failures[:5]) if failures else ''}"
    )
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
