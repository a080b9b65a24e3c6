"""What the page says item by item, of what it would take, of warnings, and of the winner on fresh seeds."""

import itertools
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from _pages import assert_sound, cell, confirmed, race

from paceline.report import render
from paceline.report.items import MOST, ROW, Duel, drawn, duels, items
from paceline.report.schema import checked
from paceline.report.series import series_of
from paceline.report.svg import draw


def words(result: dict[str, Any]) -> str:
    return assert_sound(render(result)).text.replace("\xa0", " ")


def field(count: int) -> dict[str, Any]:
    """A race of `count` contestants, the later the better, all pairs compared on items."""
    names = [f"m{i}" for i in range(count)]
    pair = race()["comparisons"]["text"][0]
    pairs = [pair | {"a": a, "b": b} for a, b in itertools.combinations(names, 2)]
    standing = race()["standings"]["text"][0]
    rows = [standing | {"contestant": name, "rank": i + 1} for i, name in enumerate(reversed(names))]
    cells = [cell("text", name, 0, 3.0) for name in names]
    more = {"contestants": names, "cells": cells, "standings": {"text": rows}, "comparisons": {"text": pairs}}
    return race() | more | {"tuning": []}


def found(result: dict[str, Any]) -> list[Duel]:
    clean = checked(result)
    return duels(clean["comparisons"]["text"], series_of(clean, "text"))


def test_the_page_has_wins_and_losses_by_item() -> None:
    text = words(race())
    for fact in ("On how many of 512 evaluation items", "310 (61 %)", "180 (35 %)", "22 equal, p < 0.001"):
        assert fact in text, fact
    label = "Items on Prose: seqboat is ahead on 310, attention(window=16) on 180, equal on 22"
    assert f'aria-label="{label}"' in render(race())


def test_the_better_placed_contestant_stands_on_the_left() -> None:
    """Whichever side of the comparison it was; its wins go with it."""
    pair = race()["comparisons"]["text"][0]
    turned = race()
    turned["comparisons"]["text"] = [pair | {"a": pair["b"], "b": pair["a"], "items": pair["items"] | {"a": 5}}]
    for result, ahead, behind in ((race(), 310, 180), (turned, 180, 5)):
        (duel,) = found(result)
        assert (duel.left, duel.right) == (("seqboat", 0), ("attention(window=16)", 1))
        assert (duel.ahead, duel.equal, duel.behind) == (ahead, 22, behind)


def test_many_pairs_are_drawn_for_the_leader_and_tabled_for_all() -> None:
    few, many = found(field(4)), found(field(5))
    assert len(few) == MOST and drawn(few) == few
    assert len(many) == 10 and [duel.right[0] for duel in drawn(many)] == ["m3", "m2", "m1", "m0"]
    assert {duel.left[0] for duel in drawn(many)} == {"m4"}
    assert "All pairs, item by item" not in words(field(4))
    text = words(field(5))
    assert "Drawn are the pairs of m4" in text and "All pairs, item by item" in text


@pytest.mark.parametrize(
    "counts", [(310, 22, 180), (5, 0, 0), (0, 7, 0), (0, 0, 0), (1, 0, 1000)], ids=lambda c: "-".join(map(str, c))
)
def test_bars_are_as_long_as_their_counts(counts: tuple[int, int, int]) -> None:
    ahead, equal, behind = counts
    duel = Duel(("a", 0), ("b", 1), ahead, equal, behind, None)
    root = draw(380, ROW, "bars", lambda figure: items(figure, (0, 0, 380, ROW), [duel]))
    bars = []
    for path in root.iter("path"):
        corners = {(float(x), float(y)) for x, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path.get("d", ""))}
        if len(corners) == 4 and 8 < max(y for _, y in corners) - min(y for _, y in corners) < 11:
            bars.append((min(x for x, _ in corners), max(x for x, _ in corners)))
    bars.sort()
    shares = [n for n in counts if n]
    assert len(bars) == len(shares)
    room = 380 - 2 * (len(shares) - 1)
    for (start, end), share in zip(bars, shares, strict=True):
        assert end - start == pytest.approx(room * share / sum(shares), abs=0.05)
    for (_, end), (start, _) in itertools.pairwise(bars):
        assert start - end == pytest.approx(2, abs=0.05)
    assert bars == [] or (bars[0][0] == pytest.approx(0, abs=0.05) and bars[-1][1] == pytest.approx(380, abs=0.05))


def test_long_names_and_counts_stay_within_the_chart() -> None:
    duel = Duel(("n" * 300, 0), ("$\\frac{" * 40, 1), 10**300, 10**300, 10**300, 0.5)
    root = draw(380, ROW, "long", lambda figure: items(figure, (0, 0, 380, ROW), [duel]))
    texts = ["".join(element.itertext()) for element in root.iter("text")]
    assert len(texts) == 5 and all(1 < len(text) < 40 for text in texts)
    ET.fromstring(ET.tostring(root))


@pytest.mark.parametrize(
    ("more", "says"),
    [(4, "4 more seeds"), (1, "1 more seed "), (0, "settled"), (None, "no number of seeds")],
)
def test_a_pair_says_what_would_settle_it(more: int | None, says: str) -> None:
    result = race()
    result["comparisons"]["text"][0]["more_seeds"] = more
    cells = re.findall(r"<td>([^<]*)</td>", render(result))
    assert says.strip() in cells
    assert "resolve the pair four times in five" in words(result)


def test_an_older_result_says_nothing_that_it_does_not_know() -> None:
    result = race()
    for key in ("interval_items", "more_seeds", "items"):
        result["comparisons"]["text"][0].pop(key)
    for row in result["standings"]["text"]:
        row.pop("warning")
    text = words(result)
    for absent in ("seeds and items", "to settle it", "no number of seeds", "Item by item", "fresh seeds", "floor.)"):
        assert absent not in text, absent
    assert "95 % interval, seeds" in text and "not resolved" in text


def test_damaged_counts_are_not_drawn() -> None:
    result = race()
    result["comparisons"]["text"][0]["items"]["b"] = -1
    assert "Item by item" not in words(result)


def test_warnings_stand_beside_the_standings() -> None:
    text = words(race())
    assert text.index("Standings") < text.index("The mean score is at the floor.") < text.index("Pair by pair")
    assert text.count("attention(window=16): The mean score is at the floor.") == 1


def test_the_winner_on_fresh_seeds_is_in_the_header_and_a_section() -> None:
    text = words(confirmed())
    assert text.index("Nothing is settled yet.") < text.index("On 2 fresh seeds it is not confirmed.")
    assert text.index("On 2 fresh seeds it is not confirmed.") < text.index("2 contestants, 3 seeds")
    section = text[text.index("The winner on fresh seeds") : text.index("The bill")]
    for fact in (
        "not confirmed",
        "−0.100",
        "−0.200 to −0.050",
        "0.500",
        "7 2.0350 2.1000 −0.0650",
        "8 2.0350 failed –",
    ):
        assert fact in section, fact
    assert "confirmation, seed 8: out of memory" in text
    assert re.search(r"confirmation 5,000 10.0 15.0", text)
