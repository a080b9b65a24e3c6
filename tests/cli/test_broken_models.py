"""What `paceline generate` is given may be broken, foreign or dangerous: one sentence, and nothing is unpickled."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from _command import Call, sentence

from paceline.lm.checkpoint import save_model
from paceline.lm.config import build, fit


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (Path("exploded"),)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a good model."""
    return save(tmp_path_factory.mktemp("whole") / "model", "text")


def save(folder: Path, task: str) -> Path:
    config = fit(["ema"], 256, 4000, task)
    save_model(build(config), config, folder)
    return folder


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


BREAKS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "truncated weights": (
        lambda m: (m / "model.safetensors").write_bytes((m / "model.safetensors").read_bytes()[:900]),
        ("model.safetensors", "checksum"),
    ),
    "one bit of a weight": (lambda m: flip(m / "model.safetensors", -7), ("model.safetensors", "checksum")),
    "one bit of the header": (lambda m: flip(m / "model.safetensors", 3), ("model.safetensors", "checksum")),
    "empty weights": (lambda m: (m / "model.safetensors").write_bytes(b""), ("model.safetensors", "checksum")),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), ("model.safetensors",)),
    "no config": (lambda m: (m / "config.json").unlink(), ("config.json",)),
    "config is not JSON": (lambda m: (m / "config.json").write_text("{"), ("config.json", "not readable JSON")),
    "config is a list": (lambda m: (m / "config.json").write_text("[]"), ("config.json",)),
    "config was edited": (lambda m: edit(m / "config.json", plan=["attention"]), ("config.json", "checksum")),
    "config of another kind": (
        lambda m: edit(m / "config.json", model_type="gpt2"),
        ("'gpt2'", "not a Paceline model"),
    ),
    "no checksums": (lambda m: (m / "checksums.json").unlink(), ("checksums",)),
    "checksums of nothing": (lambda m: (m / "checksums.json").write_text("{}"), ("checksums",)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_checkpoint_is_refused_by_name(name: str, whole: Path, call: Call) -> None:
    shutil.copytree(whole, "model")
    harm, words = BREAKS[name]
    assert call("generate", "model", "--prompt", "The ", "--tokens", "2").code == 0
    harm(Path("model"))
    answer = call("generate", "model", "--prompt", "The ", "--tokens", "2")
    refusal = sentence(answer)
    assert answer.out == "" and "model" in refusal and all(word in refusal for word in words), refusal


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_a_pickle_is_refused_and_never_loaded(name: str, call: Call) -> None:
    Path("foreign").mkdir()
    Path("foreign/config.json").write_text('{"model_type": "gpt2"}')
    Path("foreign", name).write_bytes(pickle.dumps(Bomb()))
    assert f"holds a pickle ({name}), which is never loaded" in sentence(call("generate", "foreign", "--prompt", "x"))
    assert "Pickles are never loaded" in sentence(call("generate", f"foreign/{name}", "--prompt", "x"))
    Path("foreign", "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    sentence(call("generate", "foreign", "--prompt", "x"))
    Path("foreign/config.json").write_text('{"model_type": "paceline"}')
    sentence(call("generate", "foreign", "--prompt", "x"))
    assert not Path("exploded").exists()


def test_a_folder_that_is_missing_empty_or_a_file_is_refused(call: Call) -> None:
    Path("empty").mkdir()
    assert "There is no folder nowhere" in sentence(call("generate", "nowhere", "--prompt", "x"))
    assert "empty has no config.json" in sentence(call("generate", "empty", "--prompt", "x"))
    assert "notes.txt is a file" in sentence(call("generate", "notes.txt", "--prompt", "x"))


def test_a_model_of_another_task_reads_no_prompts(call: Call) -> None:
    save(Path("model"), "recall")
    assert "model was trained on recall, not on text" in sentence(call("generate", "model", "--prompt", "x"))
