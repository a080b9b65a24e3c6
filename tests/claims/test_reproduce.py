"""A stale verdict is fresh again where one seed of it comes out the same up to rounding, and not otherwise."""

import copy
from pathlib import Path
from typing import Any

import pytest

from paceline.claims._reproduce import reproduce
from paceline.claims._run import run_claim
from paceline.claims._sources import stale
from paceline.core.errors import PacelineError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("claims")


@pytest.fixture(scope="module")
def verdict(root: Path) -> dict[str, Any]:
    found = run_claim("retnet", "smoke", root)
    return {**found, "sources": {**found["sources"], "paceline.mixers.retnet": "of before an edit"}}


def test_a_seed_that_comes_out_the_same_makes_it_fresh(verdict: dict[str, Any], root: Path) -> None:
    assert stale(verdict) == "changed: mixers.retnet"
    again = reproduce(verdict, root)
    assert stale(again) is None
    assert again["reproduced"]["seed"] == verdict["seeds"][0]
    assert again["reproduced"]["cells"] == len({(c["task"], c["contestant"]) for c in verdict["cells"]})
    assert {**again, "sources": 0, "reproduced": 0} == {**verdict, "sources": 0, "reproduced": 0}


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (lambda cell: cell.update(score=cell["score"] * (1 + 1e-3)), "score"),
        (lambda cell: cell.update(score=None), "score"),
        (lambda cell: cell["ledger"].update(flops=cell["ledger"]["flops"] + 1), "flops"),
        (lambda cell: cell["meters"].update(unheard=1.0), "unheard"),
    ],
)
def test_more_than_rounding_is_refused(edit: Any, key: str, verdict: dict[str, Any], root: Path) -> None:
    other = copy.deepcopy(verdict)
    for cell in other["cells"]:
        edit(cell)
    with pytest.raises(PacelineError, match=rf"came out with another {key} .*--again"):
        reproduce(other, root)


def test_rounding_is_told(verdict: dict[str, Any], root: Path) -> None:
    other = copy.deepcopy(verdict)
    for cell in other["cells"]:
        cell["score"] *= 1 + 1e-6
    assert 0.9e-6 < reproduce(other, root)["reproduced"]["apart"] < 1.1e-6


def test_another_word_of_the_judge_is_refused(verdict: dict[str, Any], root: Path) -> None:
    other = copy.deepcopy(verdict)
    other["bars"][0]["verdict"] = "HOLDS" if other["bars"][0]["verdict"] != "HOLDS" else "FAILS"
    with pytest.raises(PacelineError, match=r"other bars by today's judge.*--again"):
        reproduce(other, root)


def test_a_rate_that_is_no_longer_searched_is_refused(verdict: dict[str, Any], root: Path) -> None:
    other = copy.deepcopy(verdict)
    for cell in other["cells"]:
        cell["lr"] = 0.25
    with pytest.raises(PacelineError, match=r"no longer searches 0.25.*--again"):
        reproduce(other, root)


def test_a_cell_that_failed_is_compared_too(verdict: dict[str, Any], root: Path) -> None:
    other = copy.deepcopy(verdict)
    for cell in other["cells"]:
        del cell["ledger"]["state_bytes"]  # as `write_failure` leaves it
    with pytest.raises(PacelineError, match=r"came out with another state_bytes .*--again"):
        reproduce(other, root)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("claim", "It beats the rest.", "its sentence"),
        ("seeds", [5], "its seeds"),
        ("shams", [], "its bars"),
        ("versions", {"torch": "1.0"}, "versions"),
    ],
)
def test_what_declares_something_else_is_refused(
    key: str, value: object, words: str, verdict: dict[str, Any], root: Path
) -> None:
    with pytest.raises(PacelineError, match=words):
        reproduce({**verdict, key: value}, root)
