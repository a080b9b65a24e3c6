"""Long documents in pieces of so many tokens, cut where sentences end."""

import re
from bisect import bisect_right

from paceline.core.errors import PacelineError
from paceline.prompt._contract import Counted

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"\s+")
_WIDEST = 12
"""Signs for each token that are looked at for a piece: where a piece could hold more, it is cut there."""


def pieces(text: str, tokens: int, model: Counted) -> list[str]:
    """A text in pieces, in order; whitespace where it is cut is left out. All of it where it is short enough.

    Args:
        tokens: the most of a piece, as the model counts them alone; a single word may have more.

    Raises:
        PacelineError: the text is blank, or pieces of no tokens.
    """
    if not text.strip() or tokens < 1:
        raise PacelineError(f"Some text must be cut into pieces of at least one token, not of {tokens}.")
    found: list[str] = []
    text, most = text.strip(), tokens + model.count("")
    while text:
        if len(text) <= _WIDEST * tokens and model.count(text) <= most:
            return [*found, text]
        window = text[: _WIDEST * tokens]
        end = _cut(window, _SENTENCE, most, model) or _cut(window, _WORD, most, model)
        end = end or next((gap.start() for gap in _WORD.finditer(text)), len(text))
        found.append(text[:end])
        text = text[end:].lstrip()
    return found


def _cut(window: str, gap: re.Pattern[str], most: int, model: Counted) -> int:
    """The last gap before which there are few enough tokens; 0 where there is none."""
    ends = [found.start() for found in gap.finditer(window)]
    fits = bisect_right(ends, most, key=lambda end: model.count(window[:end]))
    return ends[fits - 1] if fits else 0
