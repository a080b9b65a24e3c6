"""SeqBoat's mark `faithful` is lost by small departures from the paper."""

import pytest

from paceline.claims.mixers.seqboat import faithful
from paceline.mixers import seqboat


def test_it_stands():
    assert faithful() is True


@pytest.mark.parametrize(
    ("place", "other"),
    [
        ("rotate", lambda x, turns: x),
        ("windowed_attention", lambda q, k, v, window, **more: v),
        ("extract", lambda rows, packing: seqboat_extract(rows, packing).roll(1, 1)),
    ],
)
def test_it_is_lost(place, other, monkeypatch):
    monkeypatch.setattr(seqboat, place, other)
    assert faithful() is False


def test_a_window_of_one_more_is_seen(monkeypatch):
    def wider(q, k, v, window, **more):
        return windowed(q, k, v, window + 1, **more)

    monkeypatch.setattr(seqboat, "windowed_attention", wider)
    assert faithful() is False


windowed, seqboat_extract = seqboat.windowed_attention, seqboat.extract
