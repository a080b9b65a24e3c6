"""Facts about saved models: they come back exactly, or are refused by a sentence that names the folder."""

import errno
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from _tiny import PLANS, VOCABULARY, config, model, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paceline.core.errors import PacelineError
from paceline.core.files import sha256
from paceline.lm.checkpoint import load_model, save_model

FILES = ["config.json", "model.safetensors", "checksums.json"]


@pytest.fixture
def saved(tmp_path) -> Path:
    folder = tmp_path / "the-model"
    save_model(model("hybrid"), config("hybrid"), folder)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(PacelineError) as caught:
        load_model(folder)
    assert folder.name in str(caught.value)
    return str(caught.value)


def sign(folder: Path) -> None:
    """Checksums that fit whatever lies there now, as an attacker would write them."""
    sums = {name: sha256(folder / name) for name in FILES[:2]}
    (folder / "checksums.json").write_text(json.dumps(sums))


def change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    sign(folder)


@pytest.mark.parametrize("plan", PLANS)
def test_a_model_comes_back_with_identical_logits(plan, tmp_path):
    lm, text = model(plan), torch.arange(VOCABULARY).repeat(2, 2)
    save_model(lm, config(plan), tmp_path / "m")
    again, known = load_model(tmp_path / "m")
    assert known == config(plan)
    assert not again.training
    assert torch.equal(again.logits(text), lm.logits(text))


def test_the_folder_holds_three_readable_files_and_nothing_else(saved):
    assert sorted(p.name for p in saved.iterdir()) == sorted(FILES)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    assert saved.stat().st_mode & 0o777 == 0o755
    assert all(p.stat().st_mode & 0o777 == 0o644 for p in saved.iterdir())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"\x80\x04N."])
def test_a_file_missing_or_replaced_is_refused(saved, name, content):
    (saved / name).unlink() if content is None else (saved / name).write_bytes(content)
    refusal(saved)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_and_any_cut_is_refused(saved, name, data):
    content = (saved / name).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    for broken in (bytes(flipped), content[: min(place, len(content) - 2)]):  # the last newline says nothing
        (saved / name).write_bytes(broken)
        refusal(saved)
    (saved / name).write_bytes(content)
    load_model(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_refused(saved, name):
    (saved / name).unlink()
    (saved / name).mkdir()
    refusal(saved)


def test_no_folder_a_file_and_an_empty_folder_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    assert "no folder" in refusal(tmp_path / "missing")
    assert "is a file" in refusal(tmp_path / "weights.safetensors")
    assert "has no config.json" in refusal(tmp_path / "empty")


class Trap:
    """Unpickling it leaves a file behind."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_a_folder_with_a_pickle_only_is_refused_as_a_pickle(saved, name, monkeypatch):
    monkeypatch.chdir(saved.parent)
    (saved / "model.safetensors").unlink()
    (saved / name).write_bytes(pickle.dumps(Trap()))
    assert f"holds a pickle ({name}), which is never loaded" in refusal(saved)
    assert not Path("sprung").exists()


def test_a_pickle_that_calls_itself_safetensors_is_not_unpickled(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    (saved / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    sign(saved)
    refusal(saved)
    assert not Path("sprung").exists()


def test_a_foreign_model_type_is_named(saved):
    change(saved, model_type="llama")
    assert "'llama'" in refusal(saved)


@pytest.mark.parametrize(
    "values",
    [
        {"vocab_size": 2**31 - 1},
        {"d_model": 2**31 - 8},
        {"hidden": 2**31 - 1},
        {"plan": ["ema(dims=999999999999)"] * 3},
        {"plan": ["ema"]},
        {"plan": ["ema(dims=4)", "attention(heads=2, window=5)", "seqboat"]},
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused_before_it_takes_memory(saved, values):
    change(saved, **values)
    with pytest.raises(PacelineError, match=r"do not fit|Cannot build"):
        load_model(saved)


@pytest.mark.parametrize("values", [{"plan": "ema"}, {"plan": ["__import__('os')"]}, {"d_model": None}, {"more": 1}])
def test_a_hostile_config_is_refused(saved, values):
    change(saved, **values)
    with pytest.raises(PacelineError):
        load_model(saved)


class Crash(BaseException):
    """What no handler expects, like a power cut."""


@pytest.mark.parametrize("after", range(7))
def test_a_crash_while_saving_over_a_model_leaves_the_old_the_new_or_a_refusal(saved, monkeypatch, after):
    text = torch.arange(VOCABULARY).unsqueeze(0)
    old, new = model("hybrid"), model("ema", seed=1)
    calls, replace = [], os.replace

    def stop(*paths):
        calls.append(paths)
        if len(calls) > after:
            raise Crash
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        if after < 6:
            with pytest.raises(Crash):
                save_model(new, config("ema"), saved)
        else:
            save_model(new, config("ema"), saved)
    if after <= 3:  # nothing was put in place yet
        assert torch.equal(load_model(saved)[0].logits(text), old.logits(text))
    elif after == 6:
        assert torch.equal(load_model(saved)[0].logits(text), new.logits(text))
    else:
        refusal(saved)
    save_model(new, config("ema"), saved)
    assert torch.equal(load_model(saved)[0].logits(text), new.logits(text))
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("after", range(4))
def test_a_crash_while_saving_a_new_model_leaves_none(tmp_path, monkeypatch, after):
    calls, replace = [], os.replace

    def stop(*paths):
        calls.append(paths)
        if len(calls) > after:
            raise Crash
        replace(*paths)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(Crash):
        save_model(model("ema"), config("ema"), tmp_path / "m")
    assert "no folder" in refusal(tmp_path / "m")


def test_a_full_disk_is_a_sentence_and_loses_nothing(saved, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(PacelineError, match="No space left on device"):
            save_model(model("ema"), config("ema"), saved)
    assert same(load_model(saved)[0], model("hybrid"))
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_saving_over_a_model_keeps_other_files(saved):
    (saved / "notes.txt").write_text("mine")
    save_model(model("ema"), config("ema"), saved)
    assert (saved / "notes.txt").read_text() == "mine"
    assert same(load_model(saved)[0], model("ema"))
