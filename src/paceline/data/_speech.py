"""Words spoken by espeak-ng as mu-law bytes of one second each, kept in the cache folder and mapped.

A folder holds `train.u8` and `heldout.u8`, of `steps` bytes a clip, and `speech.json` with their digests. Clips lie
speaker by speaker, take by take, word by word. A speaker is a voice variant; each take of a word has an accent, a
pitch and a speed of its own.
"""

import hashlib
import json
import math
import os
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from paceline.core.errors import PacelineError
from paceline.core.files import cache_folder, sha256, write_atomic, write_json
from paceline.core.seeds import derive

PROGRAM = "espeak-ng"
MISSING = f"{PROGRAM}, which speaks the words, is not installed: apt-get install {PROGRAM}."
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
"""Not `en-gb`: with it, espeak-ng 1.51 speaks all variants in one voice."""
SIDES = ("train", "heldout")
_VERSION = 2  # of the recipe: part of a folder's name


@dataclass(frozen=True)
class Recipe:
    """What to speak: `takes` renderings of each word by each speaker, `steps` samples a second."""

    words: tuple[str, ...]
    train: tuple[str, ...]
    """Speakers: voice variants of espeak-ng."""
    heldout: tuple[str, ...]
    takes: int
    steps: int

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return cache_folder() / f"speech-{hashlib.sha256(repr((_VERSION, self)).encode()).hexdigest()[:12]}"


@dataclass(frozen=True, eq=False)
class Speech:
    """Clips as read-only maps of uint8, shape (speakers, takes, words, steps)."""

    train: np.ndarray
    heldout: np.ndarray
    digest: str
    """sha256 (hex) over both: it differs where another espeak-ng speaks otherwise."""


def speech(recipe: Recipe) -> Speech:
    """The clips of a recipe: from the cache, or spoken now (some 10 ms a clip and core).

    Raises:
        PacelineError: espeak-ng is missing or lacks a voice, or the cache cannot be written.
    """
    folder = recipe.folder
    kept = _open(recipe)
    if kept is None:
        _check(recipe)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
                new = Path(work) / "new"
                for side in SIDES:
                    write_atomic(new / f"{side}.u8", _speak(recipe, getattr(recipe, side), Path(work)).tobytes())
                write_json(new / "speech.json", {side: sha256(new / f"{side}.u8") for side in SIDES})
                shutil.rmtree(folder, ignore_errors=True)  # damaged
                os.replace(new, folder)
        except OSError as error:
            if _open(recipe) is None:  # or another process was faster
                raise PacelineError(
                    f"Cannot write {folder} ({error.strerror}): make room, or set PACELINE_CACHE to another folder."
                ) from error
        kept = _open(recipe)
        assert kept is not None
    return kept


def mulaw(signal: np.ndarray) -> np.ndarray:
    """A signal in [-1, 1] as 256 levels, finer near 0 (ITU-T G.711, mu = 255); silence is 128."""
    curve = np.sign(signal) * np.log1p(255 * np.abs(signal)) / np.log(256)
    return np.floor((curve + 1) / 2 * 255 + 0.5).astype(np.uint8)


def _check(recipe: Recipe) -> None:
    if shutil.which(PROGRAM) is None:
        raise PacelineError(MISSING)
    listed = subprocess.run([PROGRAM, "--voices=variant"], capture_output=True, text=True, timeout=60).stdout.split()
    for who in (*recipe.train, *recipe.heldout):
        if f"!v/{who}" not in listed:  # it would speak with its own voice instead
            raise PacelineError(f"This {PROGRAM} has no voice variant {who!r}: install version 1.50 or later.")


def _open(recipe: Recipe) -> Speech | None:
    """The kept clips; None where they are missing or are not what was written."""
    try:
        digests = json.loads((recipe.folder / "speech.json").read_text(encoding="utf-8"))
        maps = []
        for side in SIDES:
            path, shape = recipe.folder / f"{side}.u8", (len(getattr(recipe, side)), recipe.takes, len(recipe.words))
            if path.stat().st_size != math.prod(shape) * recipe.steps or sha256(path) != digests[side]:
                return None
            maps.append(np.memmap(path, np.uint8, "r", shape=(*shape, recipe.steps)))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Speech(maps[0], maps[1], hashlib.sha256(" ".join(digests[side] for side in SIDES).encode()).hexdigest())


def _speak(recipe: Recipe, speakers: Sequence[str], work: Path) -> np.ndarray:
    """All clips of these speakers, shape (speakers * takes * words, steps)."""
    orders = [(who, take, word) for who in speakers for take in range(recipe.takes) for word in recipe.words]

    def clip(number: int) -> np.ndarray:
        who, take, word = orders[number]
        accent = ACCENTS[derive(take, "accent", who, word) % len(ACCENTS)]
        pitch, speed = 30 + derive(take, "pitch", who, word) % 41, 120 + derive(take, "speed", who, word) % 81
        path = work / f"{number}.wav"
        command = [PROGRAM, "-v", f"{accent}+{who}", "-p", str(pitch), "-s", str(speed), "-w", str(path), word]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode or not path.is_file():
            raise PacelineError(
                f"{PROGRAM} cannot say {word!r} as {accent}+{who} ({done.stderr.strip()}): reinstall it."
            )
        with wave.open(str(path)) as sound:
            rate, samples = sound.getframerate(), np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
        path.unlink()
        return _second(samples, rate, recipe.steps)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(clip, range(len(orders)))))


def _second(samples: np.ndarray, rate: int, steps: int) -> np.ndarray:
    """What is not silent, at `steps` samples a second, its peak at 1, in the middle of one second; mu-law."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int64)) > 0.01 * np.abs(samples.astype(np.int64)).max())
    spoken = samples[loud[0] : loud[-1] + 1].astype(np.float64)
    common = math.gcd(steps, rate)
    signal = resample_poly(spoken, steps // common, rate // common)
    signal = signal[max(0, (len(signal) - steps) // 2) :][:steps]
    before = (steps - len(signal)) // 2
    padded = np.pad(signal, (before, steps - len(signal) - before))
    return mulaw(padded / np.abs(padded).max())
