"""The page in a real browser: hostile text, phones, themes, paper, and no request."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from _pages import CHROMIUM, Page, browse, cell, chromium, confirmed, measure, race

from paceline.report import palette, render, write

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH")


def test_a_browser_shows_hostile_text_as_text(tmp_path: Path) -> None:
    """What the browser made of the page, read from its own document."""
    marks = r"\u202eevil\u0000 \ud83d\udc69\u200d\ud83d\udc67 \ud800 \u05d0\u200f"
    hostile = json.loads(f'"<script>document.title=1</script><b>&amp; {marks}"')
    result = confirmed() | {"answer": hostile, "title": hostile, "limits": [hostile], "environment": {hostile: hostile}}
    result["cells"][0]["trace"]["tokens"] = [hostile, "</div>", *hostile]
    result["cells"][-1]["reason"] = hostile
    result["standings"]["text"][1]["warning"] = hostile
    result["confirmation"] |= {key: hostile for key in ("a", "b", "verdict", "sentence")}
    result["comparisons"]["text"][0]["a"] += hostile
    for row in (*result["cells"], *result["standings"]["text"], *result["confirmation"]["cells"]):
        row["contestant"] += hostile
    write(result, tmp_path / "page.html")
    seen = Page(browse(tmp_path / "page.html", tmp_path))
    assert not [tag for tag, _ in seen.tags if tag in ("script", "b")]
    assert seen.text.count("<script>document.title=1</script><b>&amp; ⟨U+202E⟩evil␀ 👩‍👧 \ufffd א⟨U+200F⟩") >= 14


def crowded() -> dict[str, Any]:
    """Names, answers and versions longer than a phone is wide, and more pairs than the chart of items draws."""
    result = confirmed()
    names = [f"attention(window={i}, heads=4)" for i in range(5)]
    result["contestants"] += [*names, "n" * 300]
    result["cells"] += [cell("text", name, 0, 2.5) for name in (*names, "n" * 300)]
    pair = result["comparisons"]["text"][0]
    result["comparisons"]["text"] += [
        pair | {"a": a, "b": b, "more_seeds": None, "verdict": f"{a} is better"}
        for a, b in itertools.combinations(["seqboat", *names, "n" * 300], 2)
    ]
    result["answer"] += " " + "w" * 200
    result["environment"]["weights"] = "0" * 200
    return result


def test_a_phone_shows_the_page_without_sideways_scrolling(tmp_path: Path) -> None:
    """The page never; the tables in regions of their own, that a keyboard can reach."""
    inside = "[...document.querySelectorAll('.scroll')].map(r=>[r.scrollWidth,r.clientWidth,r.tabIndex])"
    wide, inner, regions = measure(
        render(crowded()), 390, f"[document.documentElement.scrollWidth,innerWidth,{inside}]", tmp_path
    )
    assert inner == 390 and wide <= 390
    assert any(content > room for content, room, _ in regions), "nothing was wide: the test says nothing"
    assert all(room <= 390 and reach == 0 for _, room, reach in regions)


@pytest.mark.parametrize(("scheme", "dark"), [(1, False), (0, True)], ids=["light", "dark"])
def test_the_page_follows_the_readers_theme(scheme: int, dark: bool, tmp_path: Path) -> None:
    """Ground, text and the charts' colours, as the browser computes them."""
    expression = """[getComputedStyle(document.body).backgroundColor,getComputedStyle(document.body).color,
        getComputedStyle(document.querySelector('.chart path[style*="fill: var(--s0)"]')).fill]"""
    seen = measure(render(race()), 800, expression, tmp_path, f"--blink-settings=preferredColorScheme={scheme}")
    paper = "#14171a" if dark else "#fdfdfb"
    wanted = [paper, palette.TONES[palette.INK][1 + dark], palette.HUES[0][dark]]
    assert seen == [f"rgb({int(c[1:3], 16)}, {int(c[3:5], 16)}, {int(c[5:7], 16)})" for c in wanted]


def test_paper_holds_everything(tmp_path: Path) -> None:
    """The print rules on the width of A4 less its margins: regions expand, what is folded opens, nothing sticks out."""
    page = render(confirmed())
    assert page.count("@media print") == 1
    printed = page.replace("@media print", "@media all")
    regions = """[...document.querySelectorAll('.scroll')].map(r=>[getComputedStyle(r).overflow,r.scrollWidth,
        r.clientWidth,r.checkVisibility()])"""
    wide, found = measure(printed, 688, f"[document.documentElement.scrollWidth,{regions}]", tmp_path)
    assert wide <= 688
    assert len(found) == page.count('class="scroll')
    for overflow, content, room, shown in found:
        assert overflow == "visible" and content <= room and shown


def test_the_page_prints(tmp_path: Path) -> None:
    long = confirmed()
    long["limits"] = [f"Limit {i}." for i in range(120)]
    pages = []
    for i, result in enumerate((confirmed(), long)):
        source = write(result, tmp_path / f"{i}.html")
        chromium(source, tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
        pdf = (tmp_path / "page.pdf").read_bytes()
        assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF")
        pages.append(len(re.findall(rb"/Type\s*/Page\b", pdf)))
    assert 0 < pages[0] < pages[1]


def test_no_request_leaves(tmp_path: Path) -> None:
    """The browser's own log of the network, for our page full of addresses and for one that asks for them."""
    lures = [f'<img src="http://lure{i}.invalid/"><link rel=stylesheet href=//lure{i}.invalid>' for i in range(4)]
    result = confirmed() | {"answer": lures[0], "limits": [lures[1]], "environment": {lures[2]: lures[2]}}
    result["confirmation"] |= {"sentence": lures[3], "verdict": "url(http://lure4.invalid)"}
    write(result, tmp_path / "page.html")
    (tmp_path / "naive.html").write_text("<!doctype html>" + "".join(lures))
    asked = {}
    for name in ("page", "naive"):
        log = tmp_path / f"{name}.json"
        browse(tmp_path / f"{name}.html", tmp_path, f"--log-net-log={log}")
        asked[name] = set(re.findall(r"https?://(lure\d\.invalid)", log.read_text()))
    assert asked == {"page": set(), "naive": {f"lure{i}.invalid" for i in range(4)}}
