"""`paceline train` makes a model folder that `paceline generate` continues texts with."""

import os
from pathlib import Path

import pytest
from _command import SMALL, Answer, Call, flat, load, paceline, sentence, write_notes

from paceline.lm.checkpoint import load_model

SEQBOAT = "seqboat(dims=4, key_width=8, memory=8)"
BUDGET = ("--tokens", "32768", "--params", "6000", "--batch", "4", "--lr", "0.02")
TRAIN = ("train", SEQBOAT, "--text", "notes.txt", *BUDGET, "--out", "model")
DIE_HALFWAY = """
import os, signal
from paceline.cli import train as command
whole = command.train
def killed(*args, progress, **kwargs):
    def show(done, of, loss):
        progress(done, of, loss)
        if done > of // 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args, **{**kwargs, "save_seconds": 0.0}, progress=show)
command.train = killed
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """The folder in which a model was trained without interruption, and what the command said."""
    folder = tmp_path_factory.mktemp("trained")
    write_notes(folder)
    return folder, paceline(*TRAIN, cwd=folder)


@pytest.fixture
def model(trained: tuple[Path, Answer]) -> Path:
    return trained[0] / "model"


def test_train_says_what_it_reached_and_saves_a_model_that_loads(trained: tuple[Path, Answer], model: Path) -> None:
    answer = trained[1]
    facts = load(model / "training.json")
    decoder, config = load_model(model)
    size = sum(p.numel() for p in decoder.parameters())
    assert (answer.code, answer.err) == (0, "")
    assert f"{facts['score']:.3f} bits per byte on held-out text, {size:,} parameters, 32,768 tokens" in answer.out
    assert answer.out.splitlines()[-1] == "Use it: paceline generate model --prompt 'The '"
    assert (config.task, config.vocab_size, set(config.plan)) == ("text", 256, {SEQBOAT})
    assert 0.9 * 6000 < size < 1.1 * 6000 and facts["ledger"]["tokens"] == 32_768
    assert facts["score"] < 7  # 8 is chance
    assert sorted(p.name for p in model.iterdir()) == [
        "checksums.json", "config.json", "corpus", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "training.json",
    ]  # fmt: skip


def test_a_run_killed_halfway_resumes_to_the_same_bits(
    trained: tuple[Path, Answer], model: Path, tmp_path: Path
) -> None:
    write_notes(tmp_path)
    killed = paceline(*TRAIN, cwd=tmp_path, prelude=DIE_HALFWAY)
    assert killed.code == -9
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [".lock", "checkpoints", "corpus"]

    resumed = paceline(*TRAIN, "--resume", cwd=tmp_path)
    assert (resumed.code, resumed.err) == (0, "")
    for name in ("model.safetensors", "config.json", "checksums.json"):
        assert (tmp_path / "model" / name).read_bytes() == (model / name).read_bytes()
    mine, other = load(tmp_path / "model" / "training.json"), load(model / "training.json")
    assert (mine["curve"], mine["score"]) == (other["curve"], other["score"])
    assert not (tmp_path / "model" / "checkpoints").exists()


def interrupt(call: Call, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """The answer of a run that gets a Ctrl-C on its fifth step."""

    def stop(self: object, loss: float, flops: float, count: list[int] = []) -> None:  # noqa: B006 - counts its calls
        count.append(1)
        add(self, loss, flops)
        if len(count) == 5:
            raise KeyboardInterrupt

    from paceline.cli import train as command
    from paceline.lm import train as loop

    add, whole = loop._Run.add, command.train
    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "add", stop)
        patch.setattr(command, "train", lambda *a, **k: whole(*a, **{**k, "save_seconds": 0.0}))
        return call(*TRAIN)


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(
    model: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = interrupt(call, monkeypatch)
    assert (stopped.code, stopped.err) == (130, "") and "Give --resume" in stopped.out
    assert "give --resume" in sentence(call(*TRAIN))
    assert call(*TRAIN, "--resume").code == 0
    assert Path("model/model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "other",
    [
        ("--tokens", "65536"), ("--params", "7000"), ("--lr", "0.001"), ("--seed", "1"), ("--batch", "8"),
        ("--text", "other.txt"),
    ],
)  # fmt: skip
def test_resume_with_other_settings_is_refused_and_loses_nothing(
    other: tuple[str, str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("other.txt").write_bytes(Path("notes.txt").read_bytes()[::-1])  # of the same size
    interrupt(call, monkeypatch)
    before = {path: path.read_bytes() for path in Path("model/checkpoints").rglob("*") if path.is_file()}
    assert len(before) >= 2
    refusal = sentence(call(*TRAIN, *other, "--resume"))
    assert "another" in refusal and "model" in refusal
    assert {path: path.read_bytes() for path in Path("model/checkpoints").rglob("*") if path.is_file()} == before


def test_a_finished_or_foreign_folder_is_never_trained_over(call: Call) -> None:
    small = ("train", "ema", "--text", "notes.txt", *SMALL)
    assert call(*small, "--out", "done").code == 0
    before = Path("done/model.safetensors").read_bytes()
    assert "not empty" in sentence(call(*small, "--out", "done"))
    assert "finished model" in sentence(call(*small, "--lr", "0.01", "--out", "done", "--resume"))
    Path("done/checkpoints").mkdir()  # a kill while they were removed
    assert "finished model" in sentence(call(*small, "--out", "done", "--resume"))
    assert Path("done/model.safetensors").read_bytes() == before

    Path("mine").mkdir()
    Path("mine/config.json").write_text("precious")
    for resume in ((), ("--resume",)):
        assert sentence(call(*small, "--out", "mine", *resume)).startswith("mine ")
    assert [(p.name, p.read_text()) for p in Path("mine").iterdir()] == [("config.json", "precious")]


@pytest.mark.parametrize(
    "content",
    [bytes(range(256)) * 40, b"\xff\xfe" * 4000, b"caf\xe9 au lait " * 500, b"abc " * 750_000],
    ids=["every byte", "no UTF-8 at all", "latin-1", "one line of 3 MB"],
)
def test_any_bytes_train(content: bytes, call: Call) -> None:
    Path("bytes.txt").write_bytes(content)
    answer = call("train", "ema", "--text", "bytes.txt", *SMALL, "--out", "model")
    assert (answer.code, answer.err) == (0, "")
    stored = load(next(Path("model/corpus").glob("*/corpus.json")))
    assert stored["train"]["bytes"] + stored["heldout"]["bytes"] == len(content)
    assert call("generate", "model", "--prompt", "caf\u00e9", "--tokens", "5").code == 0


def test_generate_prints_the_prompt_and_as_many_bytes_as_asked_for(model: Path, call: Call) -> None:
    answer = call("generate", model, "--prompt", "The quick", "--tokens", "24", "--temperature", "0.01")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("The quick") and answer.out.endswith("\n")
    assert len(answer.out) == len("The quick") + 24 + 1  # so sure of itself that it writes the ASCII it has seen


def test_generate_draws_by_its_seed_and_at_temperature_0_not_at_all(model: Path, call: Call) -> None:
    def write(*options: object) -> str:
        answer = call("generate", model, "--prompt", "The ", "--tokens", "40", *options)
        assert (answer.code, answer.err) == (0, "")
        return answer.out

    assert write() == write("--seed", "0") and write("--seed", "1") != write()
    assert write("--temperature", "0") == write("--temperature", "0", "--seed", "5") != write()
    assert write("--seed", -1) != write("--seed", 10**30)  # any whole number is a seed


def test_generate_takes_what_a_shell_can_give(model: Path) -> None:
    broken = os.fsdecode(b"caf\xe9 ")
    answer = paceline("generate", model, "--prompt", broken, "--tokens", "3", "--temperature", "0", cwd=model)
    assert (answer.code, answer.err) == (0, "") and answer.out.startswith("caf? ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prompt", ""), "The prompt is empty"),
        (("--tokens", "0"), "--tokens must be at least 1, not 0"),
        (("--tokens", "-4"), "--tokens must be at least 1, not -4"),
        (("--temperature", "-1"), "temperature must be 0 or above, not -1"),
        (("--temperature", "nan"), "temperature must be 0 or above, not nan"),
    ],
)
def test_generate_refuses_what_makes_no_sense(options: tuple[str, str], words: str, model: Path, call: Call) -> None:
    assert words in flat(sentence(call("generate", model, "--prompt", "The ", *options)))
