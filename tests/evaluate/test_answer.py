"""How a model's answers are read: likelihoods of options, and words of its own."""

import math

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.evaluate._answer import PIECE, chosen, log_likelihoods, read, written
from paceline.evaluate._contract import Item
from paceline.evaluate.idk import IDK
from paceline.lm.table import Table


class Bytes:
    """A token is a byte."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


def table(*pairs: str) -> Table:
    """A chain in which each pair's second letter is likely after its first, with odds of e^5 to any other."""
    logits = torch.zeros(256, 256)
    for first, second in pairs:
        logits[ord(first), ord(second)] = 5.0
    return Table(logits)


def test_likelihoods_are_means_over_an_options_tokens() -> None:
    lm = table(":a", "ab")
    item = Item("is:", "ab", ("ab", "ax", "x"), ())
    unlikely = -math.log(math.e**5 + 255)
    likely = 5 + unlikely
    found = log_likelihoods(lm, Bytes(), item)
    assert found == pytest.approx([likely, (likely + unlikely) / 2, unlikely], rel=1e-5)
    assert found == pytest.approx(log_likelihoods(lm, Bytes(), Item("x" * PIECE + ":", "ab", item.options, ())))


def test_the_likeliest_option_is_chosen() -> None:
    item = Item("Answer: (", "B", tuple("ABCD"), ())
    assert chosen(table("(B"), Bytes(), IDK(), item) == 1
    assert chosen(table("(C"), Bytes(), IDK(), item) == 0


def test_a_written_answer_ends_with_its_line() -> None:
    item = Item("is:", "ab", ("ab",), ())
    assert written(table(":a", "ab", "b\n", "\nz"), Bytes(), item) == "ab\n"
    assert written(table(":a", "ab", "ba"), Bytes(), item, tokens=5) == "ababa"
    assert written(table(":a", "ab", "bz"), Bytes(), item, ends=(ord("z"),)) == "ab"


def test_nothing_to_read_is_refused() -> None:
    with pytest.raises(PacelineError, match="nothing to read"):
        read(table(), [])
