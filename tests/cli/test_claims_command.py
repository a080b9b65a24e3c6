"""Facts about `paceline claim` and `paceline claims`."""

import json

import pytest

from paceline.claims import _store
from paceline.claims._sources import digests, versions

VERDICT = {
    "claim": "It beats the rest.", "family": "mixers", "method": "seqboat", "budget": "cpu", "verdict": "FAILS",
    "marks": {"faithful": True, "acts": False, "resolved": True}, "effect": "FAILS: text -0.100 against ema",
    "limits": "Small.",
    "shams": [], "bars": [{
        "task": "text", "a": "seqboat", "b": "ema", "measure": "score", "by": 0.0, "equal": None, "mean": -0.1,
        "interval": [-0.2, 0.0], "seeds": 8, "p": 0.01, "p_holm": 0.01, "verdict": "FAILS",
    }],
}  # fmt: skip


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    monkeypatch.setattr(_store, "results_folder", lambda: folder)
    return folder


def keep(results, sources):
    path = results / "mixers" / "seqboat.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**VERDICT, "sources": sources, "versions": versions()}))


def rows(call):
    return json.loads(call("claims", "--json").out)


def test_a_claim_that_never_ran_says_so(results, call):
    row = next(row for row in rows(call) if row["method"] == "seqboat")
    assert (row["verdict"], row["stale"]) == (None, "never run")
    assert "never run" in call("claims").out


def test_a_fresh_verdict_is_shown_and_not_run_again(results, call):
    keep(results, digests(["paceline.mixers.seqboat"]))
    assert next(row for row in rows(call) if row["method"] == "seqboat")["stale"] is None
    said = call("claim", "seqboat")
    assert said.code == 0
    assert "On file" in said.out and "FAILS. Marks: faithful yes, acts no, resolved yes" in said.out
    assert json.loads(call("claim", "seqboat", "--json").out)["verdict"] == "FAILS"


def test_a_verdict_of_other_code_is_stale(results, call):
    keep(results, {**digests(["paceline.mixers.seqboat"]), "paceline.mixers.ema": "0"})
    assert next(row for row in rows(call) if row["method"] == "seqboat")["stale"] == "changed: mixers.ema"
    shown = call("claims").out
    assert "paceline claim seqboat --reproduce" in " ".join(shown.split())
    row = next(line for line in shown.splitlines() if line.startswith("mixers/seqboat "))
    assert row.split()[1:4] == ["FAILS", "acts", "stale"] and "text -0.100" in row


@pytest.mark.parametrize(
    "content",
    ["", "[", "[1]", "3", "{}", {"marks": 3}, {"marks": {"faithful": "x"}}, {"sources": [1]}, {"verdict": 1}],
)
def test_a_broken_verdict_file_counts_as_none(results, call, content):
    keep(results, {})
    whole = {**VERDICT, "sources": {}, "versions": {}}
    text = content if isinstance(content, str) else json.dumps({**whole, **content})
    (results / "mixers" / "seqboat.json").write_text(text)
    assert next(row for row in rows(call) if row["method"] == "seqboat")["stale"] == "never run"


@pytest.mark.parametrize(
    ("words", "expected"), [(("seqbot",), "seqboat"), (("seqboat", "--budget", "large"), "smoke, cpu, gpu")]
)
def test_an_unknown_claim_or_budget_ends_in_a_sentence(results, call, words, expected):
    said = call("claim", *words)
    assert said.code != 0 and expected in said.err and "Traceback" not in said.err
