"""What `paceline generate` is given may be broken, foreign or dangerous: one sentence, and nothing is unpickled."""

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from _command import Call, sentence

from paceline.core.files import sha256
from paceline.lm.checkpoint import save_model
from paceline.lm.config import Config, build, fit


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
        ("config.json", "checksum"),
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


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "last.ckpt", "w.pth"])
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


@pytest.mark.parametrize(
    "more",
    [
        {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}, "trust_remote_code": True},
        {"plan": ["modeling_evil"]},
        {"plan": ["modeling_evil.Evil()"]},
        {"plan": ["__import__('modeling_evil')"]},
        {"plan": ["ema(dims=__import__('modeling_evil'))"]},
        {"plan": ["../model/modeling_evil"]},
        {"task": "modeling_evil"},
        {"architectures": ["modeling_evil.Evil"]},
    ],
    ids=lambda more: ascii(more)[:60],
)
def test_code_that_a_config_names_is_never_imported(
    more: dict[str, object], whole: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, "model")
    edit(Path("model/config.json"), **more)
    for place in (Path("model"), Path()):
        (place / "modeling_evil.py").write_text("import pathlib; pathlib.Path('exploded').touch(); Evil = dict")
    names = ("config.json", "model.safetensors")
    Path("model/checksums.json").write_text(json.dumps({name: sha256(Path("model", name)) for name in names}))
    monkeypatch.syspath_prepend(str(Path.cwd()))
    answer = call("generate", "model", "--prompt", "x", "--tokens", "1")
    if "architectures" not in more:  # that one is decoration: nothing is looked up by it
        sentence(answer)
    assert not Path("exploded").exists() and "modeling_evil" not in sys.modules


@pytest.mark.parametrize(
    "prompt", ["<script>alert(1)</script>", "\u202eevil", "👩‍👩‍👧", "a\0b", "\x1b[2J", "\udcff", "x" * 100_000]
)
def test_any_prompt_is_continued(prompt: str, whole: Path, call: Call) -> None:
    answer = call("generate", str(whole), "--prompt", prompt, "--tokens", "2")
    assert answer.code == 0 and answer.err == "" and answer.out.startswith(prompt.replace("\udcff", "?"))


def test_a_prompt_of_ten_megabytes_is_refused_before_it_takes_the_memory(whole: Path, call: Call) -> None:
    refusal = sentence(call("generate", str(whole), "--prompt", "x" * 10_000_000))
    assert "The prompt has 10,000,000 bytes: give its last 1,048,576 at most." in refusal


def test_a_config_that_asks_for_more_memory_than_there_is_is_refused(call: Call) -> None:
    config = Config(256, 8, 8, ("seqboat(memory=1000000000000, dims=2)",))
    save_model(build(config), config, Path("model"))
    assert "need more memory than there is" in sentence(call("generate", "model", "--prompt", "x"))


def test_a_folder_that_is_missing_empty_or_a_file_is_refused(call: Call) -> None:
    Path("empty").mkdir()
    assert "There is no folder nowhere" in sentence(call("generate", "nowhere", "--prompt", "x"))
    assert "empty has no config.json" in sentence(call("generate", "empty", "--prompt", "x"))
    assert "notes.txt is a file" in sentence(call("generate", "notes.txt", "--prompt", "x"))


def test_a_model_of_another_task_reads_no_prompts(call: Call) -> None:
    save(Path("model"), "recall")
    assert "model was trained on recall, not on text" in sentence(call("generate", "model", "--prompt", "x"))
