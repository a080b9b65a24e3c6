"""`paceline race` on text and on a task: what it writes is whole, adds up, and is not done twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from _command import SMALL, TINY, Answer, Call, flat, load, paceline, records, scores, times, write_notes

from paceline.cli.events import LENGTH
from paceline.core.ledger import Ledger
from paceline.data.text import Text
from paceline.lm.checkpoint import load_model
from paceline.lm.evaluate import evaluate
from paceline.race.pool import Limits
from paceline.report.schema import checked

RACE = ("race", "ema", "attention(window=8)", "--seeds", "2", "--out", "out")
ON_TEXT = (*RACE, "--text", "notes.txt", *SMALL, "--keep", "best")
ON_RECALL = (*RACE, "--task", "recall(pairs=2, stretch=4)", *TINY)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """The folder of a race on text, and its answer as JSON."""
    folder = tmp_path_factory.mktemp("raced")
    write_notes(folder)
    return folder, paceline(*ON_TEXT, "--json", cwd=folder)


@pytest.fixture
def result(raced: tuple[Path, Answer]) -> dict[str, Any]:
    return load(raced[0] / "out" / "result.json")


@pytest.fixture
def copy(raced: tuple[Path, Answer], call: Call) -> Path:
    """A copy of that folder's content in the current one."""
    shutil.copytree(raced[0], Path.cwd(), dirs_exist_ok=True)
    return Path("out")


def test_json_prints_the_result_on_stdout_and_nothing_else_there(
    raced: tuple[Path, Answer], result: dict[str, Any]
) -> None:
    answer = raced[1]
    assert answer.code == 0 and answer.out.count("\n") == 1
    assert json.loads(answer.out) == result
    assert answer.err.count("cell ") == len(result["cells"]) + len(result["tuning"]) and "Traceback" not in answer.err


def test_the_result_has_every_cell_and_its_standings_are_sorted(result: dict[str, Any]) -> None:
    checked(result)
    names = ["ema", "attention(window=8)"]
    assert (result["schema"], result["contestants"], result["seeds"]) == (1, names, [0, 1])
    assert {(c["contestant"], c["seed"], c["status"]) for c in result["cells"]} == {
        (n, s, "done") for n in names for s in (0, 1)
    }
    assert all(t["status"] == "done" and t["contestant"] in names for t in result["tuning"])
    rows = result["standings"]["text"]
    assert [row["rank"] for row in rows] == [1, 2] and rows[0]["mean"] <= rows[1]["mean"]
    for row in rows:
        mine = [cell["score"] for cell in result["cells"] if cell["contestant"] == row["contestant"]]
        assert row["mean"] == pytest.approx(sum(mine) / 2) and (row["seeds"], row["failed"]) == (2, 0)
        assert row["interval"][0] <= row["mean"] <= row["interval"][1]
    for cell in result["cells"]:
        assert cell["score"] == pytest.approx(sum(cell["items"]) / len(cell["items"]))
        assert cell["ledger"]["tokens"] == 4096 and cell["curve"][-1][0] == 4096


def test_each_contestant_races_at_its_best_pilot_setting(result: dict[str, Any]) -> None:
    for cell in result["cells"]:
        pilots = [pilot for pilot in result["tuning"] if pilot["contestant"] == cell["contestant"]]
        assert len(pilots) > 1 and cell["lr"] == min(pilots, key=lambda pilot: pilot["score"])["lr"]


def test_the_comparison_is_of_paired_seeds_and_two_of_them_settle_nothing(result: dict[str, Any]) -> None:
    by = {(cell["contestant"], cell["seed"]): cell["score"] for cell in result["cells"]}
    (pair,) = result["comparisons"]["text"]
    differences = [by[pair["a"], seed] - by[pair["b"], seed] for seed in (0, 1)]
    assert pair["difference"] == pytest.approx(sum(differences) / 2) and pair["seeds"] == 2
    assert pair["verdict"] == "not resolved" and pair["p"] >= 0.5
    assert "not resolved. 2 seeds cannot settle 1 pair; 6 can." in result["answer"]


def test_the_bill_is_the_sum_of_the_ledgers(raced: tuple[Path, Answer], result: dict[str, Any]) -> None:
    spent = {phase: Ledger() for phase in ("tuning", "race", "evaluation", "failed")}
    for place, record in records(raced[0] / "out").items():
        spent[Path(place).name.partition("-")[0]] += Ledger.from_dict(record["ledger"])
        spent["evaluation"] += Ledger.from_dict(record["evaluation"])
    assert spent["tuning"].tokens > 0 and spent["race"].tokens == 4 * 4096 and spent["evaluation"].flops > 0
    for phase, ledger in spent.items():
        assert result["bill"][phase] == pytest.approx(ledger.to_dict())


def test_the_winner_is_a_model_whose_score_is_its_cells(raced: tuple[Path, Answer], result: dict[str, Any]) -> None:
    folder, winner = raced[0], result["winner"]
    assert winner["contestant"] == result["standings"]["text"][0]["contestant"] and winner["folder"] == "best"
    own = {cell["seed"]: cell for cell in result["cells"] if cell["contestant"] == winner["contestant"]}
    assert own[winner["seed"]]["score"] == min(cell["score"] for cell in own.values())
    assert winner["command"] == "paceline generate best --prompt 'The '"
    model, config = load_model(folder / "best")
    assert config.plan == (winner["contestant"],) * 2
    assert sum(p.numel() for p in model.parameters()) == own[winner["seed"]]["ledger"]["parameters"]
    (corpus,) = (folder / "out" / "corpus").iterdir()
    torch.set_num_threads(1)
    assert evaluate(model, Text(corpus, LENGTH)).items == pytest.approx(own[winner["seed"]]["items"], rel=1e-5)


def test_the_losers_weights_are_gone_and_the_winner_generates(
    raced: tuple[Path, Answer], copy: Path, call: Call
) -> None:
    kept = list(Path.cwd().rglob("*.safetensors"))
    assert len(kept) == 2 and Path("best/model.safetensors").resolve() in kept  # the race keeps its own copy
    assert kept[0].read_bytes() == kept[1].read_bytes()
    assert not list(copy.glob("checkpoints/**/*.*"))
    answer = call("generate", "best", "--prompt", "The ", "--tokens", "8")
    assert (answer.code, answer.err) == (0, "") and answer.out.startswith("The ")


def test_the_page_stands_beside_the_result_and_says_the_same(
    raced: tuple[Path, Answer], result: dict[str, Any]
) -> None:
    page = (raced[0] / "out" / "report.html").read_text(encoding="utf-8")
    assert (
        result["answer"] in page
        and "attention(window=8)" in page
        and "http://" not in page.replace("http://www.w3.org", "")
    )


def test_the_same_command_again_repeats_nothing_and_says_the_same(
    copy: Path, result: dict[str, Any], call: Call
) -> None:
    before, weights = times(copy), Path("best/model.safetensors").read_bytes()
    answer = call(*ON_TEXT)
    assert (answer.code, answer.err) == (0, "") and times(copy) == before
    again = load(copy / "result.json")
    for key in ("cells", "tuning", "standings", "comparisons", "bill", "winner", "answer"):
        assert again[key] == result[key]
    assert Path("best/model.safetensors").read_bytes() == weights
    assert flat(result["answer"]) in flat(answer.out)
    assert answer.out.splitlines()[-3:] == [
        "Report: out/report.html", f"Winner: {again['winner']['contestant']} (seed {again['winner']['seed']}) in best",
        "Use it: paceline generate best --prompt 'The '",
    ]  # fmt: skip


def test_a_finished_race_is_confirmed_by_the_same_command_and_a_flag(
    copy: Path, result: dict[str, Any], call: Call
) -> None:
    before = times(copy)
    answer = call(*ON_TEXT, "--confirm")
    found, after = load(copy / "result.json")["confirmation"], times(copy)
    assert answer.code == 0 and flat(found["sentence"]) in flat(answer.out)
    assert {place: after[place] for place in before} == before and len(after) == len(before) + 12
    assert found["seeds"] == [2, 3, 4, 5, 6, 7] and found["a"] == result["winner"]["contestant"]
    assert load(copy / "result.json")["cells"] == result["cells"]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text(path.read_text()[:100])])
def test_a_lost_or_broken_record_is_made_again_alone_and_alike(
    harm: Any, copy: Path, result: dict[str, Any], call: Call
) -> None:
    before, expected = times(copy), scores(copy)
    victim = next(path for path in copy.glob("cells/**/race-1-*.json"))
    harm(victim)
    assert call(*ON_TEXT).code == 0
    after = times(copy)
    assert [place for place in after if after[place] != before[place]] == [str(victim.relative_to(copy / "cells"))]
    assert scores(copy) == expected and load(copy / "result.json")["standings"] == result["standings"]


def test_a_generated_task_is_raced_by_its_accuracy(call: Call) -> None:
    answer = call(*ON_RECALL)
    result = load(Path("out/result.json"))
    assert (answer.code, answer.err) == (0, "")
    (task,) = result["tasks"]
    assert (task["name"], task["metric"], task["floor"], task["ceiling"]) == ("recall", "accuracy", 1 / 8, 1.0)
    assert "2 key-value pairs are told, 4 blanks follow" in task["describe"]
    rows = result["standings"]["recall"]
    assert rows[0]["mean"] >= rows[1]["mean"] and all(0 <= cell["score"] <= 1 for cell in result["cells"])
    winner = result["winner"]
    assert winner["command"] is None and "Use it" not in answer.out  # it reads no prompts
    assert load_model(Path(winner["folder"]))[1].task == "recall"


def test_without_options_the_folder_is_named_by_what_is_raced(call: Call) -> None:
    command = ("race", "ema", "--task", "recall", *TINY, "--seeds")
    assert call(*command, "1").code == call(*command, "2").code == call(*command, "1").code == 0
    assert len(list(Path("runs").iterdir())) == 2
    assert call(*command, "1").out.count("has no rival") == 1


@pytest.mark.parametrize("json_too", [False, True])
def test_a_race_in_which_all_fail_exits_with_the_reason(
    json_too: bool, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.race.run.default_limits", lambda: Limits(workers=2, seconds=0.0))
    answer = call(*ON_RECALL, *(["--json"] if json_too else []))
    reason = "It was stopped after 0 seconds, the limit of a cell."
    assert answer.code == 1 and answer.err.splitlines()[-1] == f"paceline: Every cell failed; the first said: {reason}"
    result = load(Path("out/result.json"))
    assert result["winner"] is None and {cell["reason"] for cell in result["cells"]} == {reason}
    assert reason in Path("out/report.html").read_text() and not Path("out/winner").exists()
    assert (json.loads(answer.out) == result) if json_too else "0 of 2" in answer.out
