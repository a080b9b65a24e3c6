"""Text comes from tokens piece by piece, whole characters only, and ends before a stop string."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paceline.decode._text import pieces


def decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


@given(st.text(max_size=60))
def test_the_pieces_are_the_text(text: str) -> None:
    assert "".join(pieces(iter(text.encode()), decode)) == text


@given(st.text(alphabet="ab\né", max_size=40), st.lists(st.text(alphabet="ab\n", min_size=1, max_size=3), max_size=2))
@example("baa", ["a", "baa"])
def test_nothing_from_a_stop_string_on_is_shown(text: str, stops: list[str]) -> None:
    read = next((text[:n] for n in range(len(text) + 1) if any(text[:n].endswith(stop) for stop in stops)), "")
    ends = [read.find(stop) for stop in stops if stop in read]  # reading ends with the first stop that is whole
    shown = "".join(pieces(iter(text.encode()), decode, stops))
    lines = any("\n" in stop[:-1] for stop in stops)  # a stop over a line's end is found in the line it begins in
    assert lines or shown == (text[: min(ends)] if ends else text)


def test_no_token_is_asked_for_after_a_stop() -> None:
    asked = []

    def tokens():
        for byte in b"one two three":
            asked.append(byte)
            yield byte

    assert "".join(pieces(tokens(), decode, ["two"])) == "one "
    assert bytes(asked) == b"one two"


@pytest.mark.parametrize("broken", [b"\xff\xfe", b"caf\xc3", b"\xf0\x9f\x98"])
def test_bytes_that_are_no_text_show_as_replacements(broken: bytes) -> None:
    assert "".join(pieces(iter(broken), decode)) == broken.decode(errors="replace")
