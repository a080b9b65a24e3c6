"""MRCR and IDK: cases by hand, and what only they promise."""

import pytest

from paceline.core.errors import PacelineError
from paceline.evaluate._contract import Item
from paceline.evaluate.idk import IDK
from paceline.evaluate.mrcr import MRCR


class Bytes:
    """A token is a byte."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


def test_the_ratio_is_difflibs() -> None:
    """2 * 4 matches of 5 + 7 letters; a repeated sign and what follows the answer are left out."""
    item = Item("", "abcdefg", ("abcdefg",), (), {"sign": "x7"})
    assert MRCR().score("abcdz", item) == pytest.approx(8 / 12)
    assert MRCR().score("x7 abcdefg\nUser: more", item) == 1
    assert MRCR().score("zzz", item) == 0


def test_the_piece_meant_is_the_one_of_its_number() -> None:
    for seed in range(30):
        item = MRCR(rounds=3).item(Bytes(), 3_000, seed)
        question = item.prompt.rpartition("User: ")[2]
        number = [word in question for word in ("first", "second", "third")].index(True)
        form, topic = question.partition(f"{('first', 'second', 'third')[number]} ")[2].split(" about ")
        asked = f"Write a {form} about {topic.partition(',')[0]}.\nModel: "
        assert item.prompt.split(asked)[number + 1].startswith(item.answer)


def test_idk_is_right_where_the_text_does_not_tell() -> None:
    answered = 0
    for seed in range(60):
        item = IDK().item(Bytes(), 1_500, seed)
        text, question = item.prompt.rsplit("\nWhat is", 1)
        asked, right = item.facts["asked"], question.partition(f"({item.answer}) ")[2].split(" (")[0].split("\n")[0]
        if item.facts["answered"] == "True":
            answered += 1
            assert text.count(f"colour of the {asked} is {right}.") == 1
        else:
            assert right == "I don't know" and f"the {asked} is" not in text
    assert 15 < answered < 45


def test_idk_reads_the_first_letter_that_stands_alone() -> None:
    item = Item("", "B", tuple("ABCD"), ())
    assert [IDK().score(said, item) for said in ("B", "B) blue", "(B)", "A or B", "Both", "b")] == [1, 1, 1, 0, 0, 0]


def test_numbers_out_of_range_are_refused() -> None:
    for make in (lambda: MRCR(5), lambda: MRCR(1, 0), lambda: IDK(0), lambda: IDK(known=2.0)):
        with pytest.raises(PacelineError):
            make()
