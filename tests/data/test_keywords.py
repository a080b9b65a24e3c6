"""What the keywords promise beyond the contract of the tasks."""

import pickle
import shutil

import numpy as np
import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.data import _speech
from paceline.data._contract import IGNORE
from paceline.data.keywords import HELDOUT, TRAIN, WORDS, Keywords

needs_voice = pytest.mark.skipif(shutil.which(_speech.PROGRAM) is None, reason="espeak-ng is not on PATH")
SMALL = {"steps": 400, "speakers": 4, "takes": 1}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_mulaw_by_hand():
    signal = np.array([-1.0, 0.0, 1.0, 1 / 255, -1 / 255])
    assert _speech.mulaw(signal).tolist() == [0, 128, 255, 143, 112]  # ln 2 / ln 256 = 1/8 of a side of 127.5


def test_a_second_is_trimmed_resampled_and_centred():
    tone = (8_000 * np.sin(2 * np.pi * 200 * np.arange(11_025) / 22_050)).astype(np.int16)  # half a second
    samples = np.concatenate((np.zeros(300, np.int16), tone, np.zeros(9_000, np.int16)))
    levels = _speech._second(samples, 22_050, 16_000)
    assert levels.shape == (16_000,) and levels.min() <= 1 and levels.max() == 255
    loud = np.flatnonzero(np.abs(levels.astype(int) - 128) > 20)
    assert abs(loud[0] - 4_000) < 100 and abs(loud[-1] - 12_000) < 100
    spectrum = np.abs(np.fft.rfft(np.where(levels >= 128, 1.0, -1.0)[4_000:12_000]))
    assert spectrum.argmax() == 100  # 200 Hz over half a second
    assert _speech._second(np.tile(tone, 4), 22_050, 2_000).shape == (2_000,)  # longer than a second: cut


def test_speakers_are_disjoint():
    assert len(set(TRAIN) | set(HELDOUT)) == len(TRAIN) + len(HELDOUT) == 40


@needs_voice
def test_clips_are_spoken_once_kept_and_mended(cache, monkeypatch):
    task = Keywords(**SMALL)
    (folder,) = cache.iterdir()  # and no work folder is left
    assert sorted(path.name for path in folder.iterdir()) == ["heldout.u8", "speech.json", "train.u8"]
    assert (folder / "train.u8").stat().st_size == 4 * 10 * 400 and (folder / "heldout.u8").stat().st_size == 4_000
    held, digest = task.evaluation(), task.speech.digest
    frozen = pickle.dumps(task)
    assert len(frozen) < 2_000
    with monkeypatch.context() as patch:
        patch.setattr(_speech, "PROGRAM", "no-such-program")
        assert torch.equal(pickle.loads(frozen).batch(4, 1, 2).ids, Keywords(**SMALL).batch(4, 1, 2).ids)
    damaged = bytearray((folder / "train.u8").read_bytes())
    damaged[7] ^= 1
    (folder / "train.u8").write_bytes(damaged)
    again = Keywords(**SMALL)
    assert again.speech.digest == digest and torch.equal(again.evaluation().ids, held.ids)


@needs_voice
def test_words_are_balanced_and_no_held_out_clip_is_trained_on(cache):
    task = Keywords(**SMALL)
    held, train = task.evaluation(), task.batch(2_000, 0, 0)
    assert torch.bincount(held.targets[:, -1])[256:].tolist() == [1] * 10
    assert (held.targets[:, :-1] == IGNORE).all() and (held.ids < 256).all()
    clips = {bytes(row): word for row, word in zip(train.ids.tolist(), train.targets[:, -1].tolist(), strict=True)}
    assert len(clips) == 4 * 10  # every training clip is reached, and all of them differ
    assert not any(bytes(row) in clips for row in held.ids.tolist())
    assert "".join(task.show(torch.tensor([0, 255, 256, 265]))) == f"0 255 {WORDS[0]} {WORDS[9]} "


@needs_voice
def test_every_accent_tells_the_speakers_apart(cache, monkeypatch):
    for accent in _speech.ACCENTS:
        monkeypatch.setattr(_speech, "ACCENTS", (accent,))
        monkeypatch.setattr(_speech, "derive", lambda take, *what: 0)  # one pitch and speed for all
        recipe = _speech.Recipe((f"yes {accent}",), ("f1", "m3", "boris"), ("m7",), 1, 400)
        spoken = _speech.speech(recipe)
        assert len({bytes(clip.ravel()) for clip in (*spoken.train, *spoken.heldout)}) == 4, accent


@needs_voice
def test_an_unknown_voice_is_refused(cache):
    recipe = _speech.Recipe(("yes",), ("f1", "nobody"), ("m1",), 1, 400)
    with pytest.raises(PacelineError, match="no voice variant 'nobody'"):
        _speech.speech(recipe)
    assert not cache.exists()


def test_without_espeak_it_names_the_package(cache, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(PacelineError, match="apt-get install espeak-ng"):
        Keywords(**SMALL)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 3_000}, "steps=3000"),
        ({"steps": 50}, "steps=50"),
        ({"speakers": 3}, "not 3"),
        ({"takes": 0}, "takes=0"),
    ],
)
def test_sizes_out_of_range_are_refused(options, says):
    with pytest.raises(PacelineError, match=says):
        Keywords(**options)
