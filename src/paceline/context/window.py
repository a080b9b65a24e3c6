"""Sliding window: each query reads the last tokens, the rest is forgotten.

    query i reads the keys i - tokens + 1 to i

Memory 2 g s (tokens - 1) numbers a layer and sequence, whatever the length. The simplest of the rivals.
"""

from paceline.context._contract import Policy
from paceline.context.sinks import Sinks
from paceline.core.card import Source

PAPERS = (Source(title="Longformer: The Long-Document Transformer", arxiv="2004.05150", year=2020),)


class Window(Sinks):
    """Keeps the last tokens.

    Args:
        tokens: how many a query reads, itself included.
    """

    def __init__(self, tokens: int = 256) -> None:
        super().__init__(tokens, 0)


def full_budget(length: int) -> list[Policy]:
    """Settings at which it is full attention over `length` tokens."""
    return [Window(length)]


def example() -> list[Policy]:
    """Small ones."""
    return [Window(5), Window(1)]
