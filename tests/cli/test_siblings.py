"""Models in another model's tokens, and races of cache policies, around a small Llama made on the spot."""

import os
from pathlib import Path

import pytest
from _command import Call, flat, load, sentence
from _llama import save_llama

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("transformers")
SIZE = ("--params", "9000", "--layers", "1")
TRAINING = ("--tokens", "2048", "--length", "32", "--batch", "4")


@pytest.fixture
def llama(notes: Path) -> Path:
    return save_llama(Path("llama"))


def test_a_draft_is_trained_in_the_models_tokens_and_drafts_for_it(llama: Path, call: Call) -> None:
    trained = call(
        "train", "attention", "--tokenizer", llama, "--text", "notes.txt", "--out", "draft", *SIZE, *TRAINING
    )
    assert trained.code == 0 and "bits per byte on held-out text" in flat(trained.out)
    config = load(Path("draft/config.json"))
    assert config["task"] == "token_text" and config["vocab_size"] == 256
    plain = call("generate", llama, "--prompt", "The fox", "--tokens", "20", "--decode", "greedy").out
    assert (
        plain
        == call(
            "generate", llama, "--prompt", "The fox", "--tokens", "20", "--decode", "speculative(draft='draft')"
        ).out
    )
    assert call("generate", "draft", "--prompt", "The fox", "--tokens", "5").code == 0


def test_training_goes_on_with_a_saved_model(llama: Path, call: Call) -> None:
    begin = ("--text", "notes.txt", *TRAINING, "--lr", "0.01")
    call("train", "attention", "--tokenizer", llama, "--out", "first", *SIZE, *begin)
    more = call("train", "first", "--out", "second", *begin)
    assert more.code == 0, more.err
    first, second = (load(Path(name) / "training.json") for name in ("first", "second"))
    assert second["score"] < first["score"] and second["curve"][0][1] < first["curve"][0][1]
    assert load(Path("second/config.json")) == load(Path("first/config.json"))
    assert "first has its size" in flat(sentence(call("train", "first", "--out", "third", *SIZE, *begin)))
    refusal = sentence(call("train", "first", "--tokenizer", llama, "--out", "third", *begin))
    assert "first has tokens of its own" in flat(refusal)
    refusal = sentence(call("train", "ema", "--tokenizer", "nowhere", "--out", "third", *SIZE, *begin))
    assert "There is no folder nowhere" in flat(refusal)


def test_cache_policies_race_on_what_they_lose(llama: Path, call: Call) -> None:
    Path("long.txt").write_text("\n\n".join(f"text {i}: " + "the fox and the dog and " * 6 for i in range(3)))
    names = ("full", "window(tokens=16)", "gemfilter(layer=0, tokens=16)")
    answer = call("race", *names, "--on-model", llama, "--prompts", "long.txt", "--tokens", "6", "--seeds", "2",
                  "--out", "here")  # fmt: skip
    assert answer.code == 0, answer.err
    result = load(Path("here/result.json"))
    assert [task["name"] for task in result["tasks"]] == ["continuation", "decoding"]
    assert "gemfilter(layer=0, tokens=16) chose what to keep by the prompt's last tokens" in str(result["tasks"])
    held = {c["contestant"]: c["ledger"]["state_bytes"] for c in result["cells"] if c["task"] == "continuation"}
    assert 4 * held[names[1]] < held[names[0]] and 4 * held[names[2]] < held[names[0]]
    scores = {c["contestant"]: c["score"] for c in result["cells"] if c["task"] == "continuation" and c["seed"] == 0}
    assert len(set(scores.values())) == 3  # what is forgotten matters
    refusal = sentence(call("race", "full", "--on-model", llama, "--prompts", "long.txt", "--tokens", "400"))
    assert "The shortest prompt has" in flat(refusal) and "fewer --tokens" in flat(refusal)
