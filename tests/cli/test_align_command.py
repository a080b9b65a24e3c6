"""`paceline align`: from a reward in a file, or preferences, to a model that is kept."""

import json
from pathlib import Path

import pytest
from _command import Call, flat, sentence

REWARD = """
def es(prompts, texts):
    return [text.count("e") for text in texts]


def few(prompts, texts):
    return [1]
"""
SMALL = ("--rounds", "2", "--texts", "8", "--tokens", "6")


@pytest.fixture
def trained(call: Call) -> Path:
    Path("text.txt").write_text("the cat sat on the mat. " * 200)
    few = ("--tokens", "2048", "--params", "9000", "--length", "32")
    assert call("train", "attention", "--text", "text.txt", *few, "--out", "small").code == 0
    Path("reward.py").write_text(REWARD)
    Path("prompts.txt").write_text("the cat\n\na mat")
    pairs = [{"prompt": "the ", "chosen": "cat", "rejected": "mat"}] * 4
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return Path("small")


def test_a_model_is_aligned_with_a_function_and_with_preferences(trained: Path, call: Call) -> None:
    told = call("align", trained, "--reward", "reward.py:es", "--prompts", "prompts.txt", *SMALL, "--out", "good")
    assert told.code == 0, told.err
    assert "round 2: reward" in told.out and "nats a text" in told.out and "paceline generate good" in flat(told.out)
    assert len(json.loads(Path("good/aligned.json").read_text())["rounds"]) == 2
    assert call("generate", "good", "--prompt", "the", "--tokens", "3").code == 0
    told = call("align", trained, "--with", "dpo", "--preferences", "pairs.jsonl", "--out", "preferred")
    assert told.code == 0, told.err
    assert Path("preferred/model.safetensors").is_file()
    best = call("align", trained, "--with", "best_of_n(n=3)", "--reward", "reward.py:es", "--prompts", "prompts.txt",
                *SMALL, "--out", "none")  # fmt: skip
    assert best.code == 0 and best.out.count("mean") == 2 and not Path("none").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--reward", "reward.py:few", "--prompts", "prompts.txt"), "1 numbers for 8 texts"),
        (("--reward", "reward.py:gone", "--prompts", "prompts.txt"), "no function gone"),
        (("--reward", "gone.py:es", "--prompts", "prompts.txt"), "of a file that is there"),
        (("--reward", "broken.py:es", "--prompts", "prompts.txt"), "broken.py failed"),
        (("--reward", "reward.py:es"), "give --reward FILE.py:FUNCTION and --prompts FILE"),
        (("--with", "dpo", "--reward", "reward.py:es"), "learns from --preferences"),
        (("--with", "dpo", "--preferences", "bad.jsonl"), "Line 2 of bad.jsonl has no field 'rejected'"),
        (("--with", "dqo", "--reward", "reward.py:es", "--prompts", "prompts.txt"), "Did you mean"),
        (("--with", "apa(strength=0)", "--reward", "reward.py:es", "--prompts", "prompts.txt"), "above 0"),
    ],
)
def test_what_cannot_be_aligned_is_refused(options: tuple[str, ...], words: str, trained: Path, call: Call) -> None:
    Path("broken.py").write_text("import nothing_of_that_name\n")
    Path("bad.jsonl").write_text(
        json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + '\n{"prompt": "a", "chosen": "b"}'
    )
    assert words in flat(sentence(call("align", trained, *options, *SMALL, "--out", "made")))
    assert not Path("made").exists()


def test_ways_to_align_race_and_are_drawn(trained: Path, call: Call) -> None:
    Path("prompts.txt").write_text("the cat\n\na mat\n\nthe mat\n\na cat")
    given = ("--on-model", trained, "--reward", "reward.py:es", "--prompts", "prompts.txt")
    told = call("race", "awr", *given, "--tokens", "4", "--seeds", "1", "--out", "r", "--keep", "kept", "--json")
    assert told.code == 0, told.err
    assert "awr: a reward of" in flat(told.err) and ">awr<" in Path("r/straying.svg").read_text()
    result = json.loads(told.out)
    assert {c["contestant"] for c in result["cells"]} == {"base", "awr"}
    kept = "kept" if result["winner"]["contestant"] == "awr" else None
    assert result["winner"]["folder"] == kept and Path("kept/model.safetensors").is_file() == bool(kept)
    for more in (("--text", "text.txt"), ("--params", "1000")):
        assert f"{more[0]} does not go with --reward" in sentence(call("race", "awr", *given, *more))
    assert "give --on-model" in sentence(call("race", "--reward", "reward.py:es"))
