"""Two `paceline train` into one folder at once: one trains, the other leaves with a sentence, the model is whole."""

import os
import time
from pathlib import Path

import pytest
from _command import Call, load, start, write_notes

from paceline.core.lock import NAME, PATIENCE
from paceline.lm.checkpoint import load_model

TRAIN = ("train", "ema", "--text", "notes.txt", "--tokens", "16384", "--params", "6000", "--batch", "4", "--out")
BUSY = ("out is in use by another run (process ", "wait until it ends, or choose another --out.")
LATE = {  # it waits a few seconds for the folder, and the other may be through by then
    "": ("out is not empty: give --resume to continue the run in it, or another --out.",),
    "--resume": ("out holds a finished model, so there is nothing to resume: choose another --out.",),
}


@pytest.mark.parametrize("option", ["", "--resume"])
def test_one_of_two_wins_and_the_other_says_why_it_leaves(option: str, tmp_path: Path, call: Call) -> None:
    both = [start(*TRAIN, "out", *filter(None, [option]), cwd=tmp_path) for _ in range(2)]
    said = {process.returncode: text for process in both for text in [process.communicate(timeout=200)[0]]}
    assert sorted(said) == [0, 1], said
    assert said[1].startswith("paceline: ") and said[1].count("\n") == 1
    assert all(words in said[1] for words in BUSY) or all(words in said[1] for words in LATE[option]), said[1]
    assert "Use it: paceline generate out" in said[0]

    assert call(*TRAIN, "alone").code == 0
    load_model(tmp_path / "out")
    for name in ("model.safetensors", "config.json", "checksums.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    facts = [load(tmp_path / folder / "training.json") for folder in ("out", "alone")]
    assert facts[0]["curve"] == facts[1]["curve"] and facts[0]["score"] == facts[1]["score"]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "alone"))


def test_the_other_leaves_while_the_first_still_trains(tmp_path: Path) -> None:
    write_notes(tmp_path)
    first = start(*TRAIN, "out", "--tokens", "100000000", cwd=tmp_path)
    try:
        while not (tmp_path / "out" / "corpus").exists() and first.poll() is None:
            time.sleep(0.05)
        second = start(*TRAIN, "out", cwd=tmp_path)
        said = second.communicate(timeout=100 + PATIENCE)[0]
        assert second.returncode == 1 and first.poll() is None and said.count("\n") == 1
        assert said.startswith(f"paceline: {BUSY[0]}{first.pid}, ") and said.endswith(f"{BUSY[1]}\n")
        assert (tmp_path / "out" / NAME).read_text() == str(first.pid)
    finally:
        first.kill()
        first.communicate(timeout=60)
