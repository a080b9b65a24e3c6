"""Latent List: answers are what Python itself says, and a case by hand."""

import contextlib
import io
import random

import pytest

from paceline.core.errors import PacelineError
from paceline.evaluate.latent_list import VIEWS, LatentList, replay


class Bytes:
    """A token is a byte."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


def session(prompt: str) -> str:
    """What Python prints last when the session's statements are run."""
    names: dict[str, object] = {}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for line in prompt.splitlines():
            if line.startswith(">>> "):
                exec(line.removeprefix(">>> "), {}, names)  # our own text
    return out.getvalue().splitlines()[-1]


@pytest.mark.parametrize("operations", [1, 5, 30])
def test_python_itself_gives_the_answer(operations: int) -> None:
    for seed in range(40):
        item = LatentList(operations).item(Bytes(), 2_500, seed)
        assert session(item.prompt) == item.answer.strip()


@pytest.mark.parametrize("operations", [1, 6])
@pytest.mark.parametrize("view", VIEWS)
def test_the_last_operation_changes_what_is_asked(view: str, operations: int) -> None:
    for seed in range(20):
        told = LatentList(operations, view=view).item(Bytes(), 1_500, seed).told
        assert VIEWS[view](replay(told)) != VIEWS[view](replay(told[:-1]))


def test_what_is_told_is_as_many_operations_and_gives_the_list() -> None:
    for seed in range(40):
        item = LatentList(7, view="a").item(Bytes(), 1_500, seed)
        assert len(item.told) == 8 and repr(replay(item.told)) == item.answer.strip()
        assert replay(item.prompt.splitlines()) == replay(item.told)


def test_a_case_by_hand() -> None:
    lines = [">>> a = [5, 2, 8, 2]", ">>> a.append(4)", ">>> a.remove(2)", ">>> a.pop(0)\n5", ">>> a.insert(1, 9)"]
    assert replay(lines) == [8, 9, 2, 4]
    assert replay([*lines, ">>> a.sort()", ">>> a.reverse()"]) == [9, 8, 4, 2]
    assert [view([8, 9, 2, 4]) for view in VIEWS.values()] == [8, 4, 4, 2, 9, 23, [8, 9], [8, 9, 2, 4]]


def test_scoring_reads_the_first_line() -> None:
    evaluation = LatentList(3, view="a")
    item = evaluation.item(Bytes(), 900, 1)
    said = item.answer.strip()
    assert evaluation.score(f"\n{said}\n>>> more", item) == 1
    assert evaluation.score(said.replace(" ", ""), item) == 1
    assert evaluation.score(f"The list is {said}", item) == 0
    assert evaluation.score(str(random.Random(0).random()), item) == 0


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(PacelineError, match="at least one relevant operation"):
        LatentList(0)
    with pytest.raises(PacelineError, match="cannot ask for 'a\\[7\\]'"):
        LatentList(view="a[7]")
