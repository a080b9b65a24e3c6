"""Real text as several claims race on it: of one size, budget and search, so that scores stand side by side."""

from pathlib import Path

from paceline.claims._contract import Budget
from paceline.data._corpus import default_corpus
from paceline.data.text import Text
from paceline.race.contestant import Event


def text_event(budget: Budget, corpora: Path) -> Event:
    """Next-byte prediction on the default corpus.

    Args:
        budget: how much to spend.
        corpora: folder where the text is prepared.
    """
    text = Text(default_corpus(corpora))
    if budget == "smoke":
        text.items = 8
    return {
        "smoke": Event(text, 1_024, 40_000, 2),
        "cpu": Event(text, 98_304, 200_000, 2),
        "gpu": Event(text, 98_304_000, 2_000_000, 32),
    }[budget]


def rates(budget: Budget) -> tuple[float, ...]:
    """The learning rates that every contestant chooses from."""
    return (5e-3,) if budget == "smoke" else (2e-3, 5e-3, 1.2e-2)
