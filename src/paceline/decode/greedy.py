"""Greedy decoding: the likeliest token, again and again."""

from paceline.core.card import Source
from paceline.core.state import LM
from paceline.decode._choice import Choice
from paceline.decode._contract import Stepwise, Strategy

PAPERS = (Source(title="Sequence to Sequence Learning with Neural Networks", arxiv="1409.3215", year=2014),)


class Greedy(Stepwise):
    """Takes the likeliest token; of equals the one that comes first in the vocabulary."""

    lossless = True

    def __init__(self) -> None:
        super().__init__(Choice())


def example(lm: LM) -> list[Strategy]:
    """The strategy."""
    return [Greedy()]
