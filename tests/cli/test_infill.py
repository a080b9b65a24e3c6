"""`paceline train --objective` and `paceline infill`."""

from pathlib import Path

import pytest
from _command import Call, flat, sentence


def test_a_model_trained_with_ul2_fills_a_gap_and_no_other_does(call: Call) -> None:
    Path("notes.txt").write_text("the cat sat on the mat. " * 200)
    few = ("--text", "notes.txt", "--tokens", "4096", "--params", "20000", "--length", "64")
    made = call("train", "attention", "--objective", "ul2(scale=4)", *few, "--out", "filler")
    assert made.code == 0, made.err
    assert "paceline infill filler" in flat(made.out)
    filled = call("infill", "filler", "--left", "the c", "--right", " sat", "--tokens", "5")
    assert filled.code == 0 and filled.out.startswith("the c") and filled.out.rstrip().endswith(" sat")
    assert "does not read prompts" in sentence(call("generate", "filler", "--prompt", "the"))
    assert call("train", "attention", "--objective", "causal", *few, "--out", "plain").code == 0
    assert "--objective ul2" in sentence(call("infill", "plain", "--left", "the"))
    assert call("generate", "plain", "--prompt", "the", "--tokens", "3").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--objective", "ul3"), "Did you mean 'ul2'?"),
        (("--objective", "ul2(scale=x)"), "scale"),
        (("--objective", "ul2", "--tokenizer", "smollm2"), "fresh models of bytes"),
    ],
)
def test_objectives_that_cannot_be_are_refused(options: tuple[str, ...], words: str, call: Call) -> None:
    Path("notes.txt").write_text("the cat sat on the mat. " * 200)
    told = call("train", "attention", *options, "--text", "notes.txt", "--out", "m")
    assert words in flat(sentence(told))
    assert not Path("m").exists()
