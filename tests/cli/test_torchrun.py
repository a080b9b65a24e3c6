"""`torchrun -m paceline train`: two processes make one model, and speak with one voice."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from _command import ENVIRONMENT, Answer, load, write_notes

from paceline.cli.train import run
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.lm.checkpoint import load_model
from paceline.lm.distributed import Replicated

MIXER = "seqboat(dims=4, key_width=8, memory=8)"
TRAIN = ("train", MIXER, "--text", "notes.txt", "--params", "6000", "--batch", "5")
SHORT = ("--tokens", "2560", "--length", "64")  # eight steps


def torchrun(*args: object, cwd: Path) -> Answer:
    """`paceline ...` in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "paceline"]
    done = subprocess.run(
        [*command, *map(str, args)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=100
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which one process has trained."""
    folder = tmp_path_factory.mktemp("one")
    run(
        MIXER, folder / "model", [str(write_notes(folder))], None, 2560, 6000, 2, 64, 5, 3e-3, "swiglu", 0, False, "ddp"
    )
    return folder


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_save_one_model_and_print_one_line(kind: str, one: Path) -> None:
    answer = torchrun(*TRAIN, *SHORT, "--out", kind, "--parallel", kind, cwd=one)
    assert (answer.code, answer.err) == (0, ""), answer.err
    assert answer.out.count("bits per byte on held-out text") == answer.out.count("Use it: paceline generate") == 1
    assert sorted(p.name for p in (one / kind).iterdir()) == sorted(p.name for p in (one / "model").iterdir())
    decoder, config = load_model(one / kind)
    expected, other = load_model(one / "model")
    assert config == other
    for name, tensor in expected.state_dict().items():
        assert close(decoder.state_dict()[name], tensor, tensor.dtype, least=0.1), name
    mine, theirs = load(one / kind / "training.json"), load(one / "model" / "training.json")
    assert mine["curve"][0][0] == theirs["curve"][0][0] == 320
    assert close(torch.tensor(mine["curve"]), torch.tensor(theirs["curve"]), torch.float32)
    assert mine["ledger"]["tokens"] == theirs["ledger"]["tokens"] == 2560


def test_windows_are_cut_up_and_one_model_comes_of_it(one: Path) -> None:
    common = ("train", "lightning", "--text", "notes.txt", "--params", "6000", "--batch", "1", *SHORT)
    answer = torchrun(*common, "--out", "parts", "--parallel", "sequence", cwd=one)
    assert (answer.code, answer.err) == (0, ""), answer.err
    assert "Each of 2 processes holds 32 of the 64 tokens" in answer.out and answer.out.count("Use it:") == 1
    run(
        "lightning",
        one / "whole",
        [str(one / "notes.txt")],
        None,
        2560,
        6000,
        2,
        64,
        1,
        3e-3,
        "swiglu",
        0,
        False,
        "ddp",
    )
    mine, theirs = (load_model(one / name)[0].state_dict() for name in ("parts", "whole"))
    for name, tensor in theirs.items():
        assert close(mine[name], tensor, tensor.dtype, least=0.1), name


@pytest.mark.parametrize(
    ("mixer", "more", "said"),
    [
        ("seqboat", (), "A sequence cannot be divided through SeqBoat"),
        ("lightning", ("--length", "63"), "63"),
    ],
)
def test_what_cannot_be_cut_up_is_refused_before_anything_is_written(
    mixer: str, more: tuple[str, ...], said: str, one: Path
) -> None:
    answer = torchrun(
        "train", mixer, "--text", "notes.txt", *SHORT, *more, "--out", "none", "--parallel", "sequence", cwd=one
    )
    lines = [line for line in answer.err.splitlines() if line.startswith("paceline:")]
    assert answer.code != 0 and len(lines) == 1 and said in lines[0] and not (one / "none").exists(), answer.err


def test_objectives_of_more_than_the_next_token_are_refused(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first process, here alone: starting two takes ten seconds."""
    monkeypatch.setattr("paceline.cli.train.join", lambda _: nullcontext(Replicated(0, 2, torch.device("cpu"))))
    sizes = (2560, 6000, 2, 64, 5, 3e-3, "swiglu", 0, False)
    with pytest.raises(PacelineError, match="leave --objective out"):
        run("lightning", one / "no", ["notes.txt"], None, *sizes, "sequence", objective="ul2")
    assert not (one / "no").exists()


def test_one_process_cannot_cut_up_windows(one: Path) -> None:
    with pytest.raises(PacelineError, match="for several processes"):
        run("lightning", one / "no", ["notes.txt"], None, 2560, 6000, 2, 64, 1, 3e-3, "swiglu", 0, False, "sequence")


def test_another_word_is_told_all_three(one: Path) -> None:
    with pytest.raises(PacelineError, match="ddp, fsdp or sequence, not 'tensor'"):
        run("lightning", one / "no", ["notes.txt"], None, 2560, 6000, 2, 64, 1, 3e-3, "swiglu", 0, False, "tensor")


def test_what_is_refused_is_said_once(one: Path) -> None:
    before = sorted((one / "model").rglob("*"))
    answer = torchrun(*TRAIN, *SHORT, "--out", "model", cwd=one)
    assert answer.code != 0 and answer.out == ""
    said = [line for line in answer.err.splitlines() if line.startswith("paceline:")]
    assert said == ["paceline: model is not empty: give --resume to continue the run in it, or another --out."]
    assert "paceline/src" not in answer.err and "cli/train.py" not in answer.err  # no traceback but torchrun's own
    assert sorted((one / "model").rglob("*")) == before
