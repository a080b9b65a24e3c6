"""Every code block of the README runs. Commands run with small budgets, so that the whole takes a minute."""

import inspect
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from _here import here
from _llama import save_llama

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
SMALL = {
    "race": ["--tokens", "6144", "--params", "30000", "--seeds", "2"],
    "claim": ["--budget", "smoke"],
    "train": ["--tokens", "8192", "--params", "30000"],
    "generate": ["--tokens", "20"],
    "infill": ["--tokens", "8"],
    "select": ["--prior", "best"],
    "align": ["--rounds", "2", "--texts", "8", "--tokens", "8"],
    "evaluate": ["--items", "2"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with some notes in it."""
    place = tmp_path_factory.mktemp("readme")
    (place / "notes").mkdir()
    for name in list(topics)[:12]:
        (place / "notes" / f"{name}.md").write_text(topics[name], encoding="utf-8")
    (place / "prompts.txt").write_text("def add(a, b):\n    return\n\nOnce upon a time a girl lived", encoding="utf-8")
    reward = re.search(r"def vowels.*?for text in texts\]", README, flags=re.DOTALL)
    assert reward is not None
    (place / "reward.py").write_text(reward[0], encoding="utf-8")
    (place / "like_this.txt").write_text(inspect.getsource(shlex), encoding="utf-8")
    save_llama(place / "llama")
    return place


def _run(command: list[str], folder: Path) -> str:
    env = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def _shortened(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    assert words[0] == "paceline", line
    small = SMALL.get(words[1], [])
    if words[1] == "race" and "--on-model" in words:
        small = ["--tokens", "2048" if "--text" in words else "4", "--seeds", "1"]
        policies = "full" in words and "--text" not in words
        if policies:  # on a few words, not on long texts
            small += ["--prompts", "prompts.txt"]
        if words[2:] != ["--on-model", "smollm2"]:  # a smaller model, where contestants are named
            words[words.index("--on-model") + 1] = "llama" if policies else "best"
    elif words[1] == "prompt":  # as the smaller model's score: SmolLM2 is asked in tests/prompt
        words[words.index("--on-model") + 1] = "llama"
    elif "--tokenizer" in words:  # a vocabulary of 49,152 needs more
        small = ["--tokens", "2048", "--params", "500000", "--length", "32"]
    elif words[1] == "train" and words[2] == "draft":
        small = ["--tokens", "2048", "--length", "32"]
    return [*words[1:], *small]


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """A line's output: run in this process, for importing torch and transformers anew would take most of the time."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")

    def run(line: str) -> str:
        answer = here(monkeypatch, capfd, *_shortened(line))
        assert answer.code == 0 and answer.out and "Traceback" not in answer.err, (line, answer)
        return answer.out

    return run


def test_the_two_make_commands_are_targets_and_race_is_the_default_race(call: Callable[[str], str]) -> None:
    make = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line.startswith("make ")]
    assert [shlex.split(line, comments=True)[1] for line in make] == ["race", "test"]
    plan = _run(["make", "--dry-run", "--always-make", "race", "test"], ROOT)
    assert "paceline race\n" in plan and "pytest" in plan and "ruff" in plan and "mypy" in plan
    out = call("paceline race")
    assert "Real text" in out and "Associative recall" in out and "Use it: paceline generate" in out
    command = re.search(r"Use it: (.*)", out)
    assert command is not None
    assert call(command[1]).startswith("The ")


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
def test_every_other_command_runs_in_the_order_of_the_page(folder: Path, call: Callable[[str], str]) -> None:
    lines = [
        line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line.startswith("paceline")
    ]
    assert len(lines) >= 6
    for line in lines:
        call(line)
    assert (folder / "best" / "model.safetensors").is_file() and (folder / "model" / "config.json").is_file()


@pytest.mark.parametrize("index", range(sum(kind == "python" for kind, _ in BLOCKS)))
@pytest.mark.filterwarnings("ignore")
def test_every_python_block_runs(
    index: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Here, unless it starts processes, which import its file."""
    block = [text for kind, text in BLOCKS if kind == "python"][index]
    script = folder / f"block{index}.py"
    script.write_text(block, encoding="utf-8")
    if "__main__" in block:
        assert _run([sys.executable, str(script)], folder).strip()
        return
    monkeypatch.chdir(folder)
    runpy.run_path(str(script))
    assert capfd.readouterr().out.strip()


def test_no_block_is_of_a_kind_that_nothing_runs() -> None:
    assert {kind for kind, _ in BLOCKS} == {"bash", "python"}


@pytest.mark.parametrize("name", ["default", "decoders", "policies"])
def test_the_table_and_the_answer_are_those_of_the_stored_race(name: str) -> None:
    result = json.loads((ROOT / "results" / "race" / f"{name}.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert result["answer"] in readme
    for task in result["tasks"]:
        for row in result["standings"][task["name"]]:
            low, high = row["interval"]
            assert f"| `{row['contestant']}` | {row['mean']:.3f} ({low:.3f} to {high:.3f}) |" in readme


DECODING = {
    "transformers 5.23 `generate`, float32": ["transformers, fp32"],
    "`greedy`": ["greedy"],
    "`int8`": ["int8"],
    "`lookup` on prose": ["lookup"],
    "`lookup` on code-like text": ["lookup, code", "greedy, code"],
    "`int8 + lookup` there": ["int8 + lookup, code"],
    "llama.cpp (llama-cpp-python 0.3.36) float32, Q8_0": ["llama.cpp, fp32", "llama.cpp, Q8_0"],
}


@pytest.mark.parametrize("label", DECODING)
def test_the_table_of_decoding_is_the_stored_benchmark(label: str) -> None:
    stored = json.loads((ROOT / "results" / "bench" / "decoding.json").read_text(encoding="utf-8"))
    row = next(
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| {label} |")
    )
    told = [int(number) for number in re.findall(r"\d+", row.split("|")[2])]
    assert told == [round(stored["short"]["tokens_per_second"][name]) for name in DECODING[label]]
    assert (
        stored["environment"]["transformers"].startswith("5.23")
        and stored["environment"]["llama-cpp-python"] == "0.3.36"
    )


def test_what_the_memory_would_allow_is_the_stored_benchmark() -> None:
    stored = json.loads((ROOT / "results" / "bench" / "decoding.json").read_text(encoding="utf-8"))
    assert f"would allow {stored['short']['limit']:.0f} in float32" in README


def test_eight_prompts_side_by_side_are_the_stored_benchmark() -> None:
    batch = json.loads((ROOT / "results" / "bench" / "decoding.json").read_text(encoding="utf-8"))["batch"]
    line = next(line for line in README.splitlines() if line.startswith("Eight prompts side by side: "))
    told = [int(number) for number in re.findall(r"\b\d+\b", line)]
    assert told == [round(batch[name]) for name in ("ours", "llama.cpp, fp32", "llama.cpp, Q8_0", "transformers")]


def test_the_steps_after_a_long_context_are_the_stored_benchmark() -> None:
    long = json.loads((ROOT / "results" / "bench" / "decoding.json").read_text(encoding="utf-8"))["long"]
    rows = re.findall(r"^\| `(.*?)` \| (\d+) \| (\d+) % \|$", README, flags=re.MULTILINE)
    assert len(rows) == 8 and f"A step after {long['length']:,} tokens" in README
    for policy, milliseconds, read in rows:
        facts = long["policies"][policy]
        assert int(milliseconds) == round(facts["ms_per_step"])
        held = facts["state_mib"] / long["policies"]["full"]["state_mib"]  # others read all that they hold
        assert int(read) == round(100 * facts.get("read", held))
