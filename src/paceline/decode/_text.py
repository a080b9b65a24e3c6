"""Text from tokens as they come, up to a stop string."""

from collections.abc import Callable, Iterator, Sequence

UNFINISHED = "\ufffd"


def pieces(tokens: Iterator[int], decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> Iterator[str]:
    """The text of the tokens, piece by piece: no character before it is whole, nothing from a stop string on.

    What could be the beginning of a stop string is held back until it is known.

    Args:
        tokens: as they come; no more are asked for once a stop string is there.
        decode: the tokens' text.
        stops: strings that end it.
    """
    held: list[int] = []  # the tokens of the current line, so that decoding stays cheap and spaces stay right
    shown, text = 0, ""  # of the text of `held`
    for token in tokens:
        held.append(token)
        text = decode(held)
        found = [place for stop in stops if (place := text.find(stop)) >= 0]
        if found:
            yield text[shown : max(shown, min(found))]
            return
        if text.endswith(UNFINISHED) and len(text) - len(text.rstrip(UNFINISHED)) < 4:
            continue
        safe = len(text) - _could_begin(text, stops)
        if safe > shown:
            yield text[shown:safe]
            shown = safe
        if text.endswith("\n") and shown == len(text):
            held, shown, text = [], 0, ""
    yield text[shown:]


def _could_begin(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of the text with which a stop string begins."""
    return max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
