"""`paceline generate --decode` and `paceline race --on-model`, on a small model made on the spot."""

import os
from pathlib import Path

import pytest
from _command import Call, flat, load, sentence

from paceline.lm.checkpoint import save_model
from paceline.lm.config import build, fit

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture
def model(notes: Path) -> Path:
    config = fit(["attention", "ema"], 256, 6000, "text")
    save_model(build(config), config, Path("model"))
    return Path("model")


def test_every_lossless_form_writes_what_greedy_writes(model: Path, call: Call) -> None:
    plain = call("generate", model, "--prompt", "The fox", "--tokens", "30", "--decode", "greedy").out
    assert call("generate", model, "--prompt", "The fox", "--tokens", "30", "--temperature", "0").out == plain
    answer = call("generate", model, "--prompt", "The fox", "--tokens", "30", "--decode", "lookup", "--counts")
    assert answer.out == plain and "30 tokens in" in flat(answer.err) and "guessed tokens accepted" in flat(answer.err)


def test_a_stop_text_ends_it_and_is_not_shown(model: Path, call: Call) -> None:
    plain = call("generate", model, "--prompt", "x", "--tokens", "30", "--temperature", "0").out
    stop = plain[5]
    cut = call("generate", model, "--prompt", "x", "--tokens", "30", "--temperature", "0", "--stop", stop).out
    assert cut == plain[: 1 + plain[1:].index(stop)] + "\n"


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        ("gredy", "There is no method 'gredy'"),
        ("seqboat", "seqboat is one of mixers: decoding takes a method of decode, context, compress, tokens"),
        ("exact_bytes", "model reads bytes as it is: leave exact_bytes out"),
        ("byte_ensemble", "joins several models: build it in Python"),
        ("lookup(guesses=0)", "guesses must be at least 1, not 0"),
        ("sample(top_p=2.0)", "top_p must be above 0 and at most 1, not 2.0"),
        ("greedy + sample", "names two ways to choose tokens"),
        ("lookup(", "Cannot read"),
        ("gemfilter(tokens=8)", "gemfilter needs layer: write gemfilter(layer=...)"),
        ("set_based", "set_based needs start and split and end"),
        ("speculative", "speculative needs draft='DIR'"),
        ("full", "model has no cache that a policy could keep"),
    ],
)
def test_what_cannot_work_is_refused(decode: str, words: str, model: Path, call: Call) -> None:
    assert words in flat(sentence(call("generate", model, "--prompt", "x", "--decode", decode)))


def test_a_context_that_is_no_policy_is_refused(model: Path, call: Call) -> None:
    refusal = sentence(call("generate", model, "--prompt", "x", "--context", "lookup"))
    assert "--context lookup is no cache policy" in flat(refusal)


def test_a_race_on_a_model_times_each_beside_greedy(model: Path, call: Call) -> None:
    Path("prompts.txt").write_text("The fox and the dog and the fox\n\nA quick brown\n\nthen some come by, then some")
    names = ("greedy", "lookup", "int8 + lookup(guesses=3)")
    budget = ("--prompts", "prompts.txt", "--tokens", "8", "--seeds", "2")
    answer = call("race", *names, "--on-model", "model", *budget, "--out", "here")
    assert answer.code == 0, answer.err
    result = load(Path("here/result.json"))
    assert {cell["status"] for cell in result["cells"]} == {"done"} and len(result["cells"]) == 6
    lossless = [cell for cell in result["cells"] if "int8" not in cell["contestant"]]
    assert all(cell["meters"]["same_as_greedy"] == 1 for cell in lossless)
    assert all(cell["ledger"]["model_calls"] > 0 and cell["ledger"]["state_bytes"] > 0 for cell in result["cells"])
    assert "Use it: paceline generate model --decode" in flat(answer.out) and Path("here/report.html").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prompts", "notes.txt"), "--prompts needs --on-model"),
        (("--on-model", "model", "--keep", "kept"), "--keep does not go with --on-model"),
        (("--on-model", "model", "--text", "notes.txt", "--task", "recall"), "--task does not go with --on-model"),
        (("--on-model", "model", "--prompts", "nowhere"), "Cannot read --prompts nowhere"),
        (("--on-model", "model", "--prompts", "empty.txt"), "There is no prompt"),
        (("--on-model", "model", "--prompts", "bad.jsonl"), "has no text under `prompt` or `text`"),
        (("--on-model", "nomodel"), "There is no folder nomodel"),
        (("--on-model", "model", "--out", "notes.txt"), "--out notes.txt is a file"),
        (("--on-model", "model", "ema"), "ema is one of mixers"),
        (("--on-model", "model", "--tokens", "1"), "Decoding needs at least 2 tokens"),
    ],
)
def test_bad_input_is_refused(options: tuple[str, ...], words: str, model: Path, call: Call) -> None:
    Path("empty.txt").write_text("\n\n")
    Path("bad.jsonl").write_text('{"question": 1}\n')
    assert words in flat(sentence(call("race", *options)))
