"""Hostile and odd input, case after case in one process: everything ends well, or in a sentence.

    python stress/fuzz.py                                100,000 cases in a few minutes; writes results/fuzz.json
    python stress/fuzz.py --cases 5000 --seed 7
    python stress/fuzz.py --only files --case 812        one case of seed 0 again, with its traceback

Five targets: command lines, contestants and tasks, data files, saved models, results. A case passes if it succeeds, or
raises PacelineError, or is a usage error; it fails on any other exception, a warning, a message that is no single
sentence, five seconds without an end, or a file written outside its folder. What costs minutes (training, the cells of
a race) is cut off where the arguments have been checked.
"""

import argparse
import collections
import contextlib
import faulthandler
import functools
import inspect
import io
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import matplotlib.font_manager  # noqa: F401 - makes its cache in the true home
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hostile import NUMBERS, WORDS, bent, broken, inside, read_again, spec, warped
from rich.console import Console
from rich.progress import Progress, TaskID

from paceline import cli
from paceline.cli.events import task_event
from paceline.core.discovery import methods, part
from paceline.core.errors import PacelineError
from paceline.core.files import sha256, write_json
from paceline.data._reader import Document, read_documents
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.lm.checkpoint import CONFIG, SUMS, WEIGHTS, load_model, save_model
from paceline.lm.config import Config, build, fit
from paceline.race.contestant import Model
from paceline.race.result import environment
from paceline.report import render, table
from paceline.report.words import visible

ROOT = Path(__file__).parents[1]
LIMIT = 5.0
"""Seconds that a case may take."""
LONGEST = 2000
"""Characters of a message that someone still reads."""
WATCH = 500
"""Cases between two looks at the folders around the case's own."""
TURNS = 20
"""Rounds over all targets, so that a run cut short has seen something of each."""
MEMORY = 8 * 2**30
"""Bytes that a case may take before it is told that there are no more."""


class Checked(BaseException):
    """The arguments were good: here the work would begin."""


class TooLong(BaseException):
    """The case ran out of time. Not an Exception, so that nothing swallows it."""


class Unclear(Exception):
    """A refusal that is no sentence."""


@dataclass(frozen=True)
class Target:
    """Draws a case, and does with it what a user would, in the current folder."""

    make: Callable[[random.Random], Any]
    use: Callable[[Any], object]
    share: float
    """Of all cases; pages and commands cost a hundred times what a spec costs."""


@dataclass
class Tally:
    """What came of one target."""

    cases: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0
    """Of the processor: another's load is not ours."""
    causes: dict[str, int] = field(default_factory=dict)
    """Failures by exception and place."""


# --- what a case is ---------------------------------------------------------------------------------------------------

PARTS = {m: [*inspect.signature(part("mixers", m)).parameters][1:] for m in methods("mixers")}
SLOW = ("text", "keywords", "domains")
"""Tasks that read or speak what they are made of."""
TASKS = {m: [*inspect.signature(part("data", m)).parameters] for m in methods("data") if m not in SLOW}
PROSE = "The cat sat on the mat. Ein Esel läuft. 猫。\n" * 100
FILES: dict[str, bytes] = {}
MODELS: list[dict[str, bytes]] = []


def make_command(draw: random.Random) -> list[str]:
    """An argv: good, odd or torn."""

    def some(*good: str) -> str:
        chosen = draw.choice(good)
        return chosen if draw.random() < 0.6 else draw.choice((draw.choice(WORDS), bent(draw, chosen)))

    def number() -> str:
        return draw.choice(NUMBERS)

    texts = ("notes.txt", "rows.jsonl", "table.csv", "*.txt", ".", "model", "nothing.txt")
    options = {"--text": lambda: some(*texts), "--field": lambda: some("text", "other"), "--tokens": number,
               "--seeds": number, "--params": number, "--layers": number, "--length": number, "--batch": number,
               "--lr": number, "--seed": number, "--temperature": number, "--task": lambda: spec(draw, TASKS),
               "--out": lambda: some("out", "notes.txt", "model", "new/er"), "--keep": lambda: some("kept", "model"),
               "--prompt": lambda: some("The ", PROSE)}  # fmt: skip
    command, *usual = draw.choice((
        ("list",), ("show",), ("race", "--text", "--tokens", "--params", "--out"), ("race", "--task", "--seeds"),
        ("race", "--task", "--keep", "--tokens", "--out"), ("train", "--text", "--out", "--params", "--tokens"),
        ("train", "--text", "--out", "--lr", "--layers", "--length", "--batch", "--seed"), ("generate", "--prompt"),
        ("generate", "--prompt", "--tokens", "--temperature", "--seed"),
    ))  # fmt: skip
    first = {"list": lambda: some("mixers", "data", "tokens"), "show": lambda: some(*PARTS, *TASKS),
             "generate": lambda: some("model")}.get(command, lambda: spec(draw, PARTS))  # fmt: skip
    words = [command, *(first() for _ in range(draw.choice((0, 1, 1, 1, 2, 3)) if command in ("list", "race") else 1))]
    for option in usual:
        words += [option, options[option]()]
    if draw.random() < 0.15:
        option = draw.choice([*options])
        words += draw.choice((["--json"], ["--resume"], ["--help"], ["--version"], [option, options[option]()]))
    for _ in range(draw.choice((0, 0, 0, 0, 1, 2))):
        at = draw.randrange(len(words) + 1)
        words[at : at + draw.randrange(2)] = draw.choice(([], [draw.choice(WORDS)], [number()], words[at : at + 1] * 2))
    return [inside(word) for word in words]


def use_command(words: list[str]) -> None:
    """Through the entry of the installed command. What it prints must be writable, its refusal one line."""
    code: object = 0
    with _captured() as errors, mock.patch.object(sys, "argv", ["paceline", *words]):
        try:
            cli.main()
        except Checked:
            return
        except SystemExit as stop:
            code = stop.code
        said = errors.getvalue().decode()
    if code == 130:
        raise KeyboardInterrupt
    if code in (0, None):
        return
    one = said.startswith("paceline: ") and said.endswith("\n") and visible(said[:-1]) == said[:-1]
    if not (code == 1 and one and len(said) <= LONGEST) and not (code == 2 and said.startswith(("Usage: ", "Error: "))):
        raise Unclear(f"exit {code}: {said[:300]!r}")
    raise PacelineError(said.strip())


def make_part(draw: random.Random) -> tuple[str, str]:
    """A contestant, or a task."""
    return draw.choice((("mixer", spec(draw, PARTS)), ("task", spec(draw, TASKS)), ("fit", spec(draw, PARTS))))


def use_part(given: tuple[str, str]) -> None:
    """Read, check and build it, without the memory of its weights."""
    kind, text = given
    if kind == "task":
        event = task_event(text, 4096, 3000)
        Model("ema(dims=2)").check(event)
        if event.task.length * event.task.vocab_size < 10_000:
            event.task.batch(2, seed=0, step=0)
    elif kind == "fit":
        fit([text], 256, 3000)
    else:
        with torch.device("meta"):
            build(Config(256, 16, 32, (text,)))


def make_file(draw: random.Random) -> tuple[str, bytes, str | None]:
    """A data file, damaged, now and then under another's name."""
    suffix = draw.choice((".txt", ".md", ".py", *(".jsonl", ".csv", ".parquet") * 3))
    content = FILES[suffix]
    if suffix == ".jsonl" and draw.random() < 0.5:
        rows = [warped(draw, json.loads(line)) for line in content.splitlines()[:3]]
        content = b"\n".join(json.dumps(row).encode() for row in rows)
    else:
        content = broken(draw, content)
    suffix = draw.choice([*FILES, ".bin", ".weird", ""]) if draw.random() < 0.05 else suffix
    return f"case{suffix}", content, draw.choice((None, None, None, "text", "other", "", "[x]"))


def use_file(given: tuple[str, bytes, str | None]) -> None:
    """Read it to the end."""
    name, content, wanted = given
    Path(name).write_bytes(content)
    for document in read_documents(name, wanted):
        assert isinstance(document.content, bytes)


def make_checkpoint(draw: random.Random) -> dict[str, bytes]:
    """A saved model, damaged; most checksums are made to fit, since they would hide all else."""
    files = dict(draw.choice(MODELS))
    if draw.random() < 0.5:
        config = json.loads(files[CONFIG])
        if draw.random() < 0.4:
            config["plan"] = [re.sub(r"\d+", lambda _: draw.choice(NUMBERS), name) for name in config["plan"]]
        for _ in range(draw.choice((0, 1, 1, 2))):
            config = warped(draw, config)
        files[CONFIG] = json.dumps(config).encode()
    elif draw.random() < 0.5:
        size = struct.unpack("<Q", files[WEIGHTS][:8])[0]
        head = json.dumps(warped(draw, json.loads(files[WEIGHTS][8 : 8 + size]))).encode()
        files[WEIGHTS] = struct.pack("<Q", len(head)) + head + files[WEIGHTS][8 + size :]
    else:
        name = draw.choice((CONFIG, WEIGHTS, WEIGHTS, SUMS))
        files[name] = broken(draw, files[name])
    if draw.random() < 0.05:
        files[draw.choice(("model.bin", CONFIG, WEIGHTS))] = draw.choice((b"", b"\x80\x04N.", b"PK\x03\x04"))
    if draw.random() < 0.05:
        del files[draw.choice(list(files))]
    if draw.random() < 0.9:
        files.pop(SUMS, None)
    return files


def use_checkpoint(files: dict[str, bytes]) -> None:
    """Load it and let it say two tokens."""
    folder = Path("saved")
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if SUMS not in files:
        (folder / SUMS).write_text(json.dumps({name: sha256(folder / name) for name in files}))
    model, _ = load_model(folder)
    generate(model, [1, 2, 3], Greedy(), 2).all()


def make_result(draw: random.Random) -> Any:
    """A race's result with a few places out of shape, as JSON gives it back."""
    result = _race()
    if draw.random() < 0.5:  # fewer charts: a page costs a tenth of a second for each
        for cell in result["cells"]:
            cell["ledger"], cell["curve"] = {}, []
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        result = warped(draw, result, most=20)
    return read_again(result if isinstance(result, dict) else _race())


def use_result(result: Any) -> None:
    """The tables of every task, and the page, which must be text that a file can hold."""
    page = render(result)
    page.encode()
    assert "<script" not in page.lower()
    for task in result["tasks"]:
        with contextlib.suppress(PacelineError):  # a name with controls in it is shown, and asked for, otherwise
            Console(file=io.StringIO(), width=80).print(table(result, task["name"]))


TARGETS = {
    "commands": Target(make_command, use_command, 0.04),
    "parts": Target(make_part, use_part, 0.30),
    "files": Target(make_file, use_file, 0.555),
    "checkpoints": Target(make_checkpoint, use_checkpoint, 0.10),
    "results": Target(make_result, use_result, 0.005),
}


# --- good input to start from -----------------------------------------------------------------------------------------


def prepare() -> None:
    """Fill FILES and MODELS."""
    rows = [{"text": f"Line {i}: {PROSE[:80]}", "n": i, "other": "x" * i, "none": None} for i in range(30)]
    FILES.update(dict.fromkeys((".txt", ".md", ".py"), PROSE.encode()))
    FILES[".jsonl"] = b"\n".join(json.dumps(row).encode() for row in rows)
    FILES[".csv"] = ("text,n\r\n" + "".join(f'"{row["text"]}",{row["n"]}\r\n' for row in rows)).encode()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=10)
    FILES[".parquet"] = buffer.getvalue()
    with tempfile.TemporaryDirectory() as place:
        for name in ("ema(dims=2)", "attention(heads=2, window=3)", "lightning(heads=2)", "seqboat(memory=2, dims=2)"):
            config = Config(256, 8, 8, (name,))
            torch.manual_seed(0)
            save_model(build(config), config, folder := Path(place, name))
            MODELS.append({path.name: path.read_bytes() for path in folder.iterdir()})
            load_model(folder)  # torch imports much the first time: not on the first case's account


def _race() -> dict[str, Any]:
    """A small result with something in every place."""
    names, ledger = ["seqboat", "ema"], {"tokens": 1000, "flops": 2e9, "seconds": 3.5, "state_bytes": 4096}
    trace = {"tokens": list("ab\nc d"), "layers": [{"layer": 1, "gates": [0.0, 0.9, None, 0.3, 0.0, 1.0]}]}
    cells = [
        {"task": "text", "contestant": name, "seed": seed, "status": "done", "reason": None, "lr": 0.01,
         "score": 2.0 + 0.1 * seed + i, "curve": [[t, 3.0 - t / 1000] for t in range(100, 1001, 300)],
         "curve_unit": "bits per byte", "ledger": ledger, "meters": {"activated": 0.25}, "trace": None if i else trace}
        for i, name in enumerate(names) for seed in range(2)
    ]  # fmt: skip
    cells[-1] |= {"status": "failed", "reason": "loss was nan at step 41", "score": None}
    rows = [{"contestant": name, "seeds": 2, "failed": 0, "mean": 2.05 + i, "interval": [2.0, 2.1 + i], "rank": i + 1}
            for i, name in enumerate(names)]  # fmt: skip
    pair = {"a": "seqboat", "b": "ema", "difference": -0.5, "interval": [-1.0, -0.1], "p": 0.25, "p_holm": 0.25,
            "verdict": "not resolved", "seeds": 2}  # fmt: skip
    tuning = [{"task": "text", "contestant": name, "lr": lr, "score": 2.0, "status": "done", "reason": None}
              for name in names for lr in (0.01, 0.1)]  # fmt: skip
    return {
        "schema": 1, "title": "A race", "created": "2025-01-02T03:04:05", "answer": "Nothing is settled.",
        "tasks": [{"name": "text", "title": "Prose", "describe": "Predict.", "metric": "bits per byte",
                   "better": "lower", "floor": 8.0, "ceiling": None}],
        "contestants": names, "seeds": [0, 1], "tokens": {"text": 1000}, "parameters": {"text": 1200}, "alpha": 0.05,
        "cells": cells, "tuning": tuning, "standings": {"text": rows}, "comparisons": {"text": [pair]},
        "bill": {"tuning": ledger, "race": ledger},
        "winner": {"task": "text", "contestant": "seqboat", "seed": 1, "folder": "best", "command": "paceline x"},
        "environment": {"python": "3"}, "limits": ["Two seeds."],
    }  # fmt: skip


# --- the oracle -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _captured() -> Iterator[io.BytesIO]:
    """Streams as a UTF-8 terminal's, so that what cannot be encoded fails as it would there."""
    errors = io.BytesIO()
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    err = io.TextIOWrapper(errors, "utf-8", "backslashreplace", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield errors
        out.flush()


def judge(target: Target, given: Any) -> BaseException | None:
    """What is wrong with this case, or None. A refusal in a sentence comes back as PacelineError."""

    def stop(*_: object) -> NoReturn:
        raise TooLong(f"no end after {LIMIT:g} s")

    old = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)  # the libraries' business, and shown to no user
            target.use(given)
    except PacelineError as error:
        return error if str(error) else Unclear("it says nothing")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, old)
    return None


class Place:
    """A folder for the cases, with a home and a folder for temporary files around it that must stay empty."""

    def __init__(self, root: Path) -> None:
        self.root, self.case = root, root / "a" / "case"
        self.case.mkdir(parents=True)
        for name in ("home", "tmp"):
            (root / name).mkdir()
        self.around = self.listing()

    def listing(self) -> list[str]:
        """Everything outside the case's folder that a stray write would change."""
        near = [str(path) for path in self.root.rglob("*") if self.case not in path.parents]
        return sorted(path for path in near if "torchinductor" not in path)  # torch's own cache

    @contextlib.contextmanager
    def lived_in(self) -> Iterator[None]:
        """The process is at home here, and heavy work is cut off."""

        def checked(*_: object, **__: object) -> NoReturn:
            raise Checked

        def short(*args: Any, **more: Any) -> Iterator[int]:
            return itertools.islice(generate(*args, **more), 2)

        moved = {"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp"), "COLUMNS": "100"}
        with (
            contextlib.chdir(self.case),
            mock.patch.dict(os.environ, moved),
            mock.patch.object(tempfile, "tempdir", moved["TMPDIR"]),
            mock.patch("paceline.race.run.run_cells", checked),
            mock.patch("paceline.cli.train.build", checked),
            mock.patch("paceline.cli.generate.generate", short),
            mock.patch("paceline.cli.events.default_documents", lambda: iter([Document("x", PROSE.encode() * 2)])),
        ):
            yield

    def furnish(self, name: str) -> None:
        """What the case may find: nothing, or for a command the files that it may name."""
        if os.listdir(self.case):
            shutil.rmtree(self.case)
            self.case.mkdir()
            os.chdir(self.case)
        if name == "commands":
            for file, suffix in (("notes.txt", ".txt"), ("rows.jsonl", ".jsonl"), ("table.csv", ".csv")):
                Path(file).write_bytes(FILES[suffix])
            Path("model").mkdir()
            for file, content in MODELS[0].items():
                Path("model", file).write_bytes(content)


def run(name: str, cases: range, seed: int, place: Place, tally: Tally, step: Callable[[str], object]) -> None:
    """The cases of one target into `tally`; each distinct failure is told to `step` once, and "" after every case."""
    target, began = TARGETS[name], time.process_time()
    try:
        for case in cases:
            given = target.make(random.Random(f"{seed} {name} {case}"))
            place.furnish(name)
            wrong = judge(target, given)
            tally.cases += 1
            if wrong is None or isinstance(wrong, PacelineError):
                tally.refused += wrong is not None
            else:
                tally.failed += 1
                if (cause := _cause(wrong)) not in tally.causes:
                    again = f"--seed {seed} --only {name} --case {case}"
                    step(f"FAILED: {cause}\n  given: {repr(given)[:400]}\n  again: python stress/fuzz.py {again}")
                tally.causes[cause] = tally.causes.get(cause, 0) + 1
            if ((case + 1) % WATCH == 0 or case == cases[-1]) and (now := place.listing()) != place.around:
                tally.failed += 1
                tally.causes["a file outside"] = tally.causes.get("a file outside", 0) + 1
                step(f"FAILED: one of the {WATCH} cases up to {name} {case} wrote {set(now) ^ set(place.around)}")
                place.around = now
            step("")
    finally:
        tally.seconds = round(tally.seconds + time.process_time() - began, 1)


def _cause(error: BaseException) -> str:
    """The exception, and the last line of ours that it passed."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "paceline" in f.filename]
    where = f" in {Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}: {str(error).splitlines()[0][:160] if str(error) else ''}"


def main() -> int:
    """0 where nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="how many, over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TARGETS, help="one target")
    parser.add_argument("--case", type=int, help="replay one case of it")
    asked = parser.parse_args()
    faulthandler.enable()
    console, tallies = Console(stderr=True), collections.defaultdict[str, Tally](Tally)
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a time limit prints what there is, as Ctrl-C does
    torch.set_num_threads(1)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    prepare()
    with tempfile.TemporaryDirectory() as root, contextlib.suppress(KeyboardInterrupt):
        place = Place(Path(root))
        if asked.case is not None:
            return replay(asked.only, asked.case, asked.seed, place)
        with Progress(*Progress.get_default_columns(), console=console) as bars, place.lived_in():
            names = [asked.only] if asked.only else list(TARGETS)
            counts = [asked.cases if asked.only else round(asked.cases * TARGETS[name].share) for name in names]
            lines = [bars.add_task(name, total=count) for name, count in zip(names, counts, strict=True)]

            def step(said: str, line: TaskID) -> None:
                if said:
                    bars.console.print(said, markup=False, highlight=False, soft_wrap=True)
                else:
                    bars.advance(line)

            for turn in range(TURNS):
                for name, count, line in zip(names, counts, lines, strict=True):
                    part_of = range(count * turn // TURNS, count * (turn + 1) // TURNS)
                    run(name, part_of, asked.seed, place, tallies[name], functools.partial(step, line=line))
    for name, tally in tallies.items():
        print(f"{name}: {tally.cases:,} cases, {tally.refused:,} refused, {tally.failed:,} failed, {tally.seconds:g} s")
        for cause, count in tally.causes.items():
            print(f"  {count:,} x {cause}")
    if not asked.only:
        done = sum(tally.cases for tally in tallies.values())
        spent = {"seconds": round(time.monotonic() - began, 1), "processor_seconds": round(time.process_time(), 1)}
        facts = {"asked": asked.cases, "cases": done, "seed": asked.seed, **spent}
        targets = {name: asdict(tally) for name, tally in tallies.items()}
        write_json(ROOT / "results" / "fuzz.json", {**facts, "targets": targets, "environment": environment()})
    return int(any(tally.failed for tally in tallies.values()))


def replay(name: str, case: int, seed: int, place: Place) -> int:
    """One case with its input and, where it fails, the whole traceback."""
    given = TARGETS[name].make(random.Random(f"{seed} {name} {case}"))
    with place.lived_in():
        place.furnish(name)
        wrong = judge(TARGETS[name], given)
    print(f"given: {repr(given)[:4000]}")
    if wrong is None or isinstance(wrong, PacelineError):
        print(f"refused: {wrong}" if wrong else "succeeded")
        return 0
    traceback.print_exception(wrong)
    return 1


if __name__ == "__main__":
    sys.exit(main())
