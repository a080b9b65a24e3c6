"""The report: it says what the race found, and nothing in a result can break it, reach the network or run."""

import copy
import html
import io
import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from _pages import ATTACK, assert_sound, cell, confirmed, empty, ledger, race
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.core.errors import PacelineError
from paceline.report import picture, render, table, write
from paceline.report.costs import front
from paceline.report.curves import mean_curve
from paceline.report.layout import beside, spread
from paceline.report.trace import level, rates, runs
from paceline.report.words import visible


def test_the_page_says_what_was_found() -> None:
    text = assert_sound(render(race())).text
    for fact in ("Nothing is settled yet.", "The winner is", "runs/best", "paceline generate runs/best", "Prose",
                 "Predict the next byte.", "8 (the floor)", "2.020", "2.000 to 2.040", "2, 1 failed", "not resolved",
                 "−0.095", "0.250", "loss was nan at step 41", "Three seeds cannot settle anything.", "python",
                 "Where seqboat chose to attend", "3 of 6 tokens activated (50\xa0%)"):  # fmt: skip
        assert fact.replace("\xa0", " ") in text.replace("\xa0", " "), fact


def test_the_bill_adds_up_and_sizes_do_not() -> None:
    result = race()
    result["bill"]["race"] = {"tokens": 7000, "flops": 1e10, "seconds": 15.0, "peak_bytes": 4096}
    text = assert_sound(render(result)).text
    assert re.search(r"sum 17,000 30.0 45.0 –", text)


def test_user_text_is_only_ever_text() -> None:
    result = json.loads(json.dumps(confirmed()).replace("seqboat", ATTACK))
    result |= {"answer": ATTACK, "title": f'"{ATTACK}', "limits": [ATTACK], "environment": {ATTACK: ATTACK}}
    result["tasks"][0] |= {"title": ATTACK, "describe": ATTACK, "metric": f"{ATTACK} $x$"}
    result["cells"][0] |= {"trace": {"tokens": [ATTACK, "</div>", "&"], "layers": [{"layer": 0, "gates": [0.5, 0, 1]}]}}
    result["cells"][0] |= {"curve_unit": ATTACK, "meters": {ATTACK: 1.0}}
    result["cells"][-1]["reason"] = ATTACK
    result["standings"]["text"][1]["warning"] = ATTACK
    result["confirmation"] |= {"sentence": ATTACK, "verdict": ATTACK, "b": ATTACK, "task": ATTACK}
    result["confirmation"]["cells"][3] |= {"reason": ATTACK, "status": "failed"}
    result["bill"][ATTACK] = {ATTACK: 1.0}
    result["winner"] |= {"folder": ATTACK, "command": f"x '{ATTACK}'"}
    page = render(result)
    assert_sound(page)
    assert page.count(html.escape(ATTACK)) >= 40


def test_dollars_are_not_mathematics(tmp_path: Path) -> None:
    result = json.loads(json.dumps(race()).replace("seqboat", r"$\\frac{$ #010203"))
    picture(result, tmp_path / "p.svg")
    assert r"$\frac{$ #010203" in "".join(ET.parse(tmp_path / "p.svg").getroot().itertext())
    assert r"$\frac{$ #010203" in assert_sound(render(result)).text


def test_controls_and_direction_marks_are_shown_not_obeyed() -> None:
    result = race()
    result["cells"][0]["trace"]["tokens"] = ["a", "\n", "\x00", "\u202e", "\ud800", "\x7f"]
    result["answer"] = "evil \u202etxet\x1b[31m"
    page = render(result)
    assert "↵\n" in page and "␀" in page and "⟨U+202E⟩" in page and "\ufffd" in page and "␡" in page
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)


@given(st.lists(st.text(st.characters(), max_size=6), min_size=1, max_size=40), st.data())
@settings(max_examples=60, deadline=None)
def test_any_text_comes_through_a_trace_whole(tokens: list[str], data: Any) -> None:
    gates = data.draw(st.lists(st.floats(0, 1), min_size=len(tokens), max_size=len(tokens)))
    shown = runs(tokens, gates)
    assert "".join(text for _, text in shown) == "".join(visible(token, "↵\n") for token in tokens)
    assert sum(1 for lit, _ in shown if lit) == sum(gate > 0 for gate in gates)
    "".join(text for _, text in shown).encode()  # no lone surrogate is left


@given(st.lists(st.text(st.characters(), max_size=8), min_size=1, max_size=12), st.text(st.characters(), max_size=20))
@settings(max_examples=8, deadline=None)
def test_any_text_makes_a_sound_page(tokens: list[str], word: str) -> None:
    result = race() | {"answer": word, "limits": [word]}
    gates = [0.5 * (i % 2) for i in range(len(tokens))]
    result["cells"][0]["trace"] = {"tokens": tokens, "layers": [{"layer": 0, "gates": gates}]}
    for row in (*result["cells"], *result["standings"]["text"], *result["tuning"]):
        row["contestant"] += word
    assert_sound(render(result))


def degenerate() -> list[Any]:
    def changed(name: str, **more: Any) -> Any:
        return pytest.param(race() | more, id=name)

    one = [cell("text", "alone", 0, 2.0, curve=[], trace=None)]
    failed = [cell("text", "alone", s, None, status="failed", reason=None, lr=None, curve=[]) for s in range(2)]
    equal = [cell("text", name, s, 1.5, curve=[[0, 1.0]], ledger=ledger()) for name in "ab" for s in range(3)]
    zero = [cell("text", n, 0, 1.5, ledger=dict.fromkeys(ledger(), 0)) for n in "ab"]
    wild = [
        cell("text", "alone", 0, 1e300, curve=[[1, math.nan], [2, 1e9]], ledger={"flops": 1e30, "seconds": math.inf})
    ]
    plain = {"standings": {}, "comparisons": {}, "winner": None, "tuning": []}
    alone = plain | {"contestants": ["alone"]}
    many = [f"mixer{i}(heads={i})" for i in range(20)]
    twenty = [cell("text", name, s, 2 + i / 50) for i, name in enumerate(many) for s in range(2)]
    gates = {"tokens": ["x"] * 3000, "layers": [{"layer": i, "gates": [0.7, 0] * 1500} for i in range(3)]}
    higher = [race()["tasks"][0] | {"better": "higher", "metric": "accuracy", "floor": 0.5, "ceiling": 1.0}]
    return [
        pytest.param(empty(), id="no cells"),
        pytest.param(empty() | {"tasks": []}, id="no tasks"),
        changed("one seed", cells=one, **alone),
        changed("all failed", cells=failed, **alone),
        changed("equal scores", cells=equal, **plain | {"contestants": ["a", "b"]}),
        changed("free", cells=zero, **plain | {"contestants": ["a", "b"]}),
        changed("wild numbers", cells=wild, **alone),
        changed("huge whole numbers", tokens={"text": 10**400}, bill={"race": {"flops": -(10**400), "tokens": 1e308}}),
        changed("twenty", cells=twenty, **plain | {"contestants": many}),
        changed("long trace", cells=[cell("text", "alone", 0, 2.0, trace=gates)], **alone),
        changed("undeclared contestant", cells=one, **plain | {"contestants": []}),
        changed("long name", cells=[cell("text", "n" * 500, 0, 1.0)], **plain | {"contestants": []}),
        changed("higher is better", tasks=higher),
        changed("empty trace", cells=[cell("text", "alone", 0, 2.0, trace={"tokens": [], "layers": []})], **alone),
        changed(
            "no kept model",
            winner={"task": "text", "contestant": "seqboat", "seed": 1, "folder": None, "command": None},
        ),
    ]


@pytest.mark.parametrize("result", degenerate())
def test_degenerate_races_still_make_a_sound_page(result: dict[str, Any], tmp_path: Path) -> None:
    before = copy.deepcopy(result)
    text = assert_sound(render(result)).text
    assert "Nothing is settled yet." in text and "What this race cannot tell" in text
    picture(result, tmp_path / "p.svg")
    ET.parse(tmp_path / "p.svg")
    for task in result["tasks"]:
        assert table(result, task["name"]).row_count == len({c["contestant"] for c in result["cells"]})
    assert repr(result) == repr(before), "the result was changed"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(schema=2), "schema 2"),
        (lambda r: r.pop("answer"), "result lacks 'answer'"),
        (lambda r: r["cells"][1].update(score="good"), r"result.cells\[1\].score must be a number, not str"),
        (lambda r: r.update(seeds=[10**400]), r"result.seeds\[0\] must be a whole number"),
        (lambda r: r.update(seeds=[True]), r"result.seeds\[0\] must be a whole number"),
        (lambda r: r["tasks"][0].update(better="upper"), "must be 'lower' or 'higher'"),
        (lambda r: r.update(cells={}), "result.cells must be a list"),
        (lambda r: r.update(confirmation={"task": "text"}), "result.confirmation lacks 'a'"),
        (lambda r: r["comparisons"]["text"][0]["items"].update(a="1"), r"text\[0\].items.a must be a whole number"),
        (lambda r: r["comparisons"]["text"][0].update(more_seeds=0.5), "more_seeds must be a whole number"),
    ],
)
def test_a_malformed_result_is_refused_by_name(change: Any, says: str) -> None:
    result = race()
    change(result)
    with pytest.raises(PacelineError, match=says):
        render(result)


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    assert render(race()) == render(race())
    for name in ("a.svg", "b.svg"):
        picture(race(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "metadata" not in (tmp_path / "a.svg").read_text()
    assert write(race(), tmp_path / "deep" / "page.html").read_text() == render(race())


def test_the_terminal_table_holds_the_standings_and_no_markup() -> None:
    from rich.console import Console

    result = json.loads(json.dumps(race()).replace("seqboat", "[red]boat[/red]"))
    result["standings"]["text"][1]["warning"] = "[b]At the floor[/b]."
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(result, "text"))
    shown = console.export_text()
    assert "[red]boat[/red]" in shown and "2.000 to 2.040" in shown and "2 of 3" in shown
    assert "attention(window=16): [b]At the floor[/b]." in shown
    with pytest.raises(PacelineError, match="Did you mean 'text'"):
        table(result, "texts")


def test_pareto_front_keeps_what_nothing_beats() -> None:
    points = [(1.0, 5.0), (2.0, 6.0), (3.0, 4.0), (3.0, 4.5), (4.0, 4.0)]
    assert front(points, "lower") == [0, 2]
    assert front(points, "higher") == [0, 1]
    assert front([], "lower") == []


def test_mean_curve_covers_what_all_seeds_measured() -> None:
    tokens, middle, lowest, highest = mean_curve([[[0, 4.0], [10, 2.0]], [[5, 1.0], [20, 1.0]]])
    assert tokens.tolist() == [5, 10]
    assert middle.tolist() == [2.0, 1.5] and lowest.tolist() == [1, 1] and highest.tolist() == [3, 2]
    assert len(mean_curve([[[0, 1.0]], [[5, 1.0]]])[0]) == 0
    long = mean_curve([[[t, 2.0] for t in range(5000)]])
    assert len(long[0]) == 120 and set(long[1].tolist()) == {2.0}


@given(st.lists(st.floats(0, 300), min_size=1, max_size=20))
def test_labels_keep_their_order_and_distance(wanted: list[float]) -> None:
    places = spread(wanted, 12, 0, 300)
    ranked = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gaps = [places[b] - places[a] for a, b in zip(ranked, ranked[1:], strict=False)]
    assert all(gap >= 12 - 1e-6 for gap in gaps)
    assert min(places) >= -1e-6 and max(places) <= 300 + 1e-6


def test_labels_beside_points_never_overlap() -> None:
    points = [(50.0 + 7 * i, 50.0 + 3 * (i % 4)) for i in range(12)]
    boxes = [b for b in beside(points, [40.0] * 12, 12, (0, 0, 200, 120)) if b]
    assert boxes
    for i, a in enumerate(boxes):
        assert all(a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for b in boxes[i + 1 :])


def test_gates_become_light() -> None:
    assert [level(g) for g in (None, 0.0, 1e-9, 0.2, 0.21, 1.0, 7.0)] == [0, 0, 1, 1, 2, 5, 5]
    assert rates([1.0, 0.0, 0.5, 0.5], bins=2) == [0.5, 1.0]
    assert rates([]) == []


def test_importing_the_report_costs_little() -> None:
    code = (
        "import sys, paceline.report; "
        "print([m for m in ('torch', 'matplotlib', 'jinja2', 'rich', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_line_of_ten_megabytes_is_text_like_any_other() -> None:
    result = race() | {"answer": ATTACK + "x" * 10_000_000 + "\u202e"}
    result["cells"][0]["trace"]["tokens"][0] = ATTACK * 40_000
    page = render(result)
    assert "<script" not in page and page.count(html.escape(ATTACK)) == 40_001 and "x⟨U+202E⟩</p>" in page
