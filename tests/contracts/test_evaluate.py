"""What every evaluation promises: the same question each time, at the length asked for, and answers that score."""

import random

import pytest

from paceline.core.discovery import load, methods
from paceline.core.errors import PacelineError
from paceline.evaluate._contract import Evaluation, fill

every_method = pytest.mark.parametrize("method", methods("evaluate"))
LENGTHS = (900, 1_500, 3_000)


class Bytes:
    """A token is a byte."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


class Chunks(Bytes):
    """Tokens of three letters at most, none across a line's end: what pieces have does not add up to the whole."""

    def encode(self, text: str) -> list[int]:
        return [0 for line in text.split("\n") for _ in range(0, len(line) + 1, 3)]


def evaluations(method: str) -> list[Evaluation]:
    return load("evaluate", method).example()


@every_method
def test_the_same_seed_asks_the_same_and_another_another(method: str) -> None:
    for one, other in zip(evaluations(method), evaluations(method), strict=True):
        items = [one.item(Bytes(), 1_000, seed) for seed in range(6)]
        assert items == [other.item(Bytes(), 1_000, seed) for seed in range(6)]
        assert len({item.prompt for item in items}) == 6


@every_method
@pytest.mark.parametrize("words", [Bytes(), Chunks()])
def test_lengths_are_kept_and_used(method: str, words: Bytes) -> None:
    for evaluation in evaluations(method):
        for length in LENGTHS:
            for seed in range(4):
                size = len(words.encode(evaluation.item(words, length, seed).prompt))
                assert length - 250 < size <= length


@every_method
def test_what_is_irrelevant_changes_no_answer(method: str) -> None:
    for evaluation in evaluations(method):
        for seed in range(20):
            items = [evaluation.item(Bytes(), length, seed) for length in LENGTHS]
            assert len({(item.answer, item.options, item.told) for item in items}) == 1
            for item in items:
                places = [item.prompt.find(piece) for piece in item.told]
                assert -1 not in places


@every_method
def test_perfect_answers_score_one_and_none_scores_nothing(method: str) -> None:
    for evaluation in evaluations(method):
        for seed in range(20):
            item = evaluation.item(Bytes(), 1_000, seed)
            assert evaluation.score(item.answer, item) == 1
            assert evaluation.score(f" {item.answer}", item) == 1
            for nothing in ("", "\n\n", "\x00", "[" * 500, "{" * 99, "?!"):
                assert 0 <= evaluation.score(nothing, item) < 0.2


@every_method
def test_one_option_is_right_and_guesses_score_the_floor(method: str) -> None:
    for evaluation in evaluations(method):
        places = []
        for seed in range(200):
            item = evaluation.item(Bytes(), 900, seed)
            worth = [evaluation.choice(number, item) for number in range(len(item.options))]
            assert sum(worth) == 1 and len(set(item.options)) == len(item.options)
            assert 1 / len(item.options) == pytest.approx(evaluation.floor)
            places.append(worth.index(1))
        for place in range(round(1 / evaluation.floor)):
            assert abs(places.count(place) / 200 - evaluation.floor) < 0.15


@every_method
def test_too_short_a_prompt_is_refused(method: str) -> None:
    for evaluation in evaluations(method):
        with pytest.raises(PacelineError, match="ask for a greater length"):
            evaluation.item(Bytes(), 20, 0)


def test_filler_lies_anywhere_between_what_is_told() -> None:
    draw = random.Random(0)
    found = {fill(Bytes(), 12, "<", ["a", "b"], ">", lambda: "..", draw) for _ in range(900)}
    assert {"<........ab>", "<ab........>", "<..a....b..>"} <= found
    assert fill(Bytes(), 4, "<", ["a", "b"], ">", lambda: "..", draw) == "<ab>"
