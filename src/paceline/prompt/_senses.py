"""Components that speak, listen and read pictures, by programs and packages that carry their models.

speak   eSpeak NG, a Debian package: rule-based synthesis of some hundred languages
listen  PocketSphinx, whose package holds a US English model; best with a grammar of what may be said
see     RapidOCR, whose package holds PaddleOCR's small models for text in pictures
"""

import importlib
import io
import shutil
import subprocess
import wave
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from paceline.core.errors import PacelineError
from paceline.prompt._contract import Counted
from paceline.prompt._graph import Component, Values
from paceline.prompt._kinds import Kind, Picture, Sound

RATE = 16_000
"""Samples a second that PocketSphinx's model was trained on."""
SILENCE = 0.25
"""Seconds before and after what is listened to: a recogniser that starts in a word misses it."""
LONGEST = 60
"""Seconds that a program may take to speak."""
LARGEST = 2**28
"""Bytes of a file of sound or a picture's pixels."""


def speak(voice: str = "en-us", speed: int = 150) -> Component:
    """Speech synthesis: `audio` of a `text`.

    Args:
        voice: one of `espeak-ng --voices`, with a variant, such as `en-us+f3`.
        speed: words a minute.

    Raises:
        PacelineError: the program is not installed, or has no such voice or speed.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise PacelineError("Speech is made by espeak-ng, which is not installed: apt-get install espeak-ng.")
    if not voice or not all(sign.isalnum() or sign in "+-_" for sign in voice) or voice.startswith("-"):
        raise PacelineError(f"{voice[:40]!r} is no voice: espeak-ng --voices shows them.")
    if not 80 <= speed <= 450:
        raise PacelineError(f"espeak-ng speaks 80 to 450 words a minute, not {speed}.")

    def run(_: Counted, values: Values) -> Values:
        command = [program, "-v", voice, "-s", str(speed), "-b", "1", "--stdin", "--stdout"]
        text = values["text"].encode(errors="replace")
        done = subprocess.run(command, input=text, capture_output=True, timeout=LONGEST, check=False)
        if done.returncode or not done.stdout:
            reason = done.stderr.decode(errors="replace").strip()[:120] or "nothing was said"
            raise PacelineError(f"espeak-ng made no sound ({reason}): see its voices.")
        return {"audio": _wave(io.BytesIO(done.stdout), "what espeak-ng made")}

    return Component(run, {"text": Kind.TEXT}, {"audio": Kind.AUDIO})


def listen(grammar: str | None = None) -> Component:
    """Speech recognition in English: the `text` that is said in `audio`; empty where nothing was understood.

    Args:
        grammar: what may be said, in the Java Speech Grammar Format. Default: anything, with many mistakes.

    Raises:
        PacelineError: the library is not installed, or cannot read the grammar.
    """
    sphinx = _library("pocketsphinx", "Speech is recognised by pocketsphinx")
    if grammar is None:
        decoder: Any = sphinx.Decoder(cmn="batch", loglevel="FATAL")  # nothing of what was heard before
    else:
        decoder = sphinx.Decoder(lm=None, cmn="batch", loglevel="FATAL")
        try:
            decoder.add_jsgf_string("grammar", grammar)
            decoder.activate_search("grammar")
        except (RuntimeError, ValueError, KeyError) as error:
            raise PacelineError(
                "pocketsphinx cannot read the grammar: give one in JSGF of words that it knows."
            ) from error

    def run(_: Counted, values: Values) -> Values:
        sound = resampled(values["audio"], RATE)
        quiet = np.zeros(int(SILENCE * RATE), np.float32)
        samples = np.concatenate([quiet, np.clip(sound, -1, 1), quiet]) * 32_767
        decoder.start_utt()
        decoder.process_raw(samples.astype(np.int16).tobytes(), no_search=False, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return {"text": "" if found is None else str(found.hypstr)}

    return Component(run, {"audio": Kind.AUDIO}, {"text": Kind.TEXT})


def see() -> Component:
    """Reading: the `lines` of text in an `image`, from top to bottom as they were found.

    Raises:
        PacelineError: the library is not installed.
    """
    engine = _reader()

    def run(_: Counted, values: Values) -> Values:
        found = engine(values["image"].pixels[..., ::-1].copy())  # it takes blue, green, red
        return {"lines": tuple(map(str, found.txts or ()))}

    return Component(run, {"image": Kind.IMAGE}, {"lines": Kind.TEXTS})


@cache
def _reader() -> Any:
    """Loading takes seconds: once a process."""
    rapid = _library("rapidocr", "Text in pictures is read by rapidocr and onnxruntime")
    _library("onnxruntime", "Text in pictures is read by rapidocr and onnxruntime")
    return rapid.RapidOCR(params={"Global.log_level": "critical"})


def resampled(sound: Sound, rate: int) -> Float[np.ndarray, " m"]:
    """The waveform at another rate, by a filter of several phases, so that nothing folds back."""
    if sound.rate == rate:
        return sound.wave
    from scipy.signal import resample_poly

    shared = int(np.gcd(sound.rate, rate))
    return np.asarray(resample_poly(sound.wave, rate // shared, sound.rate // shared), np.float32)


def heard(path: str) -> Sound:
    """The sound in a WAV file of 16 bits, its channels mixed.

    Raises:
        PacelineError: it cannot be read, or is of another form.
    """
    if not Path(path).is_file():
        raise PacelineError(f"There is no sound file {path[:200]!r}: give the path of a WAV file.")
    return _wave(path, path[:200])


def _wave(place: Any, name: str) -> Sound:
    try:
        with wave.open(place, "rb") as file:
            if file.getsampwidth() != 2 or file.getframerate() < 1:
                raise PacelineError(f"{name} is not in 16 bits a sample: convert it to such a WAV file.")
            content = file.readframes(LARGEST // (2 * file.getnchannels()))
            samples = np.frombuffer(content, "<i2").reshape(-1, file.getnchannels())
            rate = file.getframerate()
    except (OSError, EOFError, ValueError, RuntimeError, wave.Error) as error:
        raise PacelineError(f"{name} is no WAV file that can be read: give one of 16 bits.") from error
    return Sound(samples.astype(np.float32).mean(axis=1) / 32_768, rate)


def seen(path: str) -> Picture:
    """The picture in a file that Pillow reads.

    Raises:
        PacelineError: it cannot be read, or is too large.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")) as picture:
            if 3 * picture.width * picture.height > LARGEST:
                raise PacelineError(f"The picture {path[:200]!r} is too large: scale it down.")
            return Picture(np.asarray(picture.convert("RGB"), np.uint8))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PacelineError(f"{path[:200]!r} is no picture that can be read: give a PNG or JPEG file.") from error


def _library(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise PacelineError(f"{what}, which cannot be imported: pip install {name}.") from error
