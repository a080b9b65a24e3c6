"""Every claim runs: those whose code changed since their verdict, and a sample of the others that rotates by day."""

import datetime

import pytest

from paceline.claims._run import run_claim
from paceline.claims._store import check_budget, claims, find_claim, is_fresh, stored_verdict
from paceline.claims._verdict import VERDICTS
from paceline.core.errors import PacelineError

SAMPLE = 12
"""Five seconds each, and two minutes in all."""


def chosen() -> list[str]:
    known = claims()
    changed = [name for family, name in known if not is_fresh(stored_verdict(family, name, "cpu"))]
    start = datetime.date.today().toordinal() * SAMPLE
    rotating = [known[(start + i) % len(known)][1] for i in range(min(SAMPLE, len(known)))]
    return sorted({*changed, *rotating})


@pytest.mark.parametrize("method", chosen())
def test_the_smoke_form_runs(method, tmp_path):
    verdict = run_claim(method, "smoke", tmp_path)
    assert verdict["marks"]["faithful"] is True
    assert verdict["verdict"] in VERDICTS and len(verdict["claim"]) > 40
    assert all(cell["status"] == "done" for cell in verdict["cells"])
    names = {cell["contestant"] for cell in verdict["cells"]}
    bars = [*verdict["bars"], *verdict["shams"]]
    assert verdict["shams"] and {bar["a"] for bar in bars} | {bar["b"] for bar in bars} <= names
    assert all(bar["seeds"] == len(verdict["seeds"]) for bar in bars)


def test_an_unknown_claim_or_budget_is_refused_with_the_nearest_name():
    with pytest.raises(PacelineError, match="seqboat"):
        find_claim("seqbot")
    with pytest.raises(PacelineError, match="budgets are smoke, cpu, gpu"):
        check_budget("huge")


def test_a_claim_of_which_no_cell_could_run_has_no_verdict(tmp_path, monkeypatch):
    failed = {"cells": [{"status": "failed", "reason": "It crashed: no module"}] * 2}
    monkeypatch.setattr("paceline.claims._run.race", lambda *_, **__: failed)
    with pytest.raises(PacelineError, match="Every cell of the claim failed; the first said: It crashed: no module"):
        run_claim("retnet", "smoke", tmp_path)
