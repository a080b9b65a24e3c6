"""`paceline` itself, `list` and `show`: what needs no training. The other commands: tests/cli."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paceline import __version__, cli
from paceline.core.discovery import FAMILIES, cards

METHODS = [(card.family, card.method) for card in cards()]


def run(*args: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """`paceline` in a process of its own, which says on stderr whether it imported torch."""
    code = (
        "import sys, atexit; from paceline.cli import main\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); main()"
    )
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[int, str, str]:
    """`paceline` in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["paceline", *args])
    code: object = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    written = capsys.readouterr()
    assert isinstance(code, int)
    return code, written.out, written.err


def test_list_shows_every_method_of_every_family_without_importing_torch() -> None:
    done = run("list")
    rows = [line.split()[:2] for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "False\n")
    assert [row for row in rows if tuple(row) in METHODS] == [list(method) for method in METHODS]
    assert all(paper.title in done.stdout for card in cards() for paper in card.papers)


def test_on_a_narrow_terminal_only_titles_and_effects_are_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the pipe for a terminal
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(capsys, monkeypatch, "list", "mixers")
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in out.splitlines()]
    assert code == 0 and max(map(len, lines)) <= 80
    shown = [line.split()[:2] for line in lines]
    assert all([card.family, card.method] in shown for card in cards("mixers"))
    assert any("2306.11197  Sparse" in line for line in lines) and any(
        "\N{HORIZONTAL ELLIPSIS}" in line for line in lines
    )


def test_list_as_json_holds_papers_and_marks_without_importing_torch() -> None:
    done = run("list", "mixers", "--json")
    assert (done.returncode, done.stderr) == (0, "False\n")
    rows = {row["method"]: row for row in json.loads(done.stdout)}
    assert {"attention", "ema", "lightning", "seqboat"} <= rows.keys()
    assert {row["family"] for row in rows.values()} == {"mixers"}
    for row in rows.values():
        assert set(row["marks"]) == {"faithful", "acts", "resolved"}
        assert all(mark in (True, False, None) for mark in row["marks"].values())
        assert row["summary"] and row["papers"] and all(p["title"] and p["year"] > 1900 for p in row["papers"])
    assert "2306.11197" in [paper["arxiv"] for paper in rows["seqboat"]["papers"]]


def test_show_tells_what_a_method_computes_where_it_is_from_and_how_to_use_it_without_importing_torch() -> None:
    done = run("show", "seqboat")
    assert (done.returncode, done.stderr) == (0, "False\n")
    card = next(card for card in cards("mixers") if card.method == "seqboat")
    for piece in (card.docstring, card.papers[0].title, "2306.11197", "Marks: faithful", "paceline train seqboat"):
        assert piece in done.stdout


@pytest.mark.parametrize(("family", "method"), METHODS)
def test_show_as_json_knows_every_method(
    family: str, method: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = call(capsys, monkeypatch, "show", method, "--json")
    facts = json.loads(out)
    assert (code, err, facts["method"], facts["family"]) == (0, "", method, family)
    assert facts["use"][-1] == f"python: import paceline.{family}.{method}"


def test_families_can_be_combined_and_an_empty_one_lists_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "list", "data", "mixers", "--json")
    assert code == 0 and {row["family"] for row in json.loads(out)} == {"data", "mixers"}
    empty = next(family for family in FAMILIES if not cards(family))
    assert call(capsys, monkeypatch, "list", empty, "--json") == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("show", "seqbot"), ("'seqbot'", "Did you mean 'seqboat'?")),
        (("show", "zzzz"), ("'zzzz'", "`paceline list` shows all")),
        (("list", "mixer"), ("'mixer'", "Did you mean 'mixers'?")),
        (("list", "data", "nosuchfamily"), ("'nosuchfamily'", "families are")),
    ],
)
def test_an_unknown_name_is_refused_in_a_sentence_with_the_nearest_one(
    args: tuple[str, ...], words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = call(capsys, monkeypatch, *args)
    assert (code, out) == (1, "")
    assert err.startswith("paceline: ") and err.count("\n") == 1 and all(word in err for word in words)


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--nonsense",),
        ("rase",),
        ("race", "--nonsense"),
        ("race", "--seeds", "two"),
        ("race", "--tokens", "1e6"),
        ("show",),
        ("train", "ema"),
        ("generate", "somewhere"),
        ("generate", "somewhere", "--prompt", "x", "--temperature", "hot"),
    ],
)
def test_a_usage_error_exits_with_2_and_no_traceback(
    args: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = call(capsys, monkeypatch, *args)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ") and "Traceback" not in err


def test_the_version_and_the_help_of_every_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(capsys, monkeypatch, "--version") == (0, f"{__version__}\n", "")
    for command in ("race", "list", "show", "train", "generate"):
        code, out, err = call(capsys, monkeypatch, command, "--help")
        assert (code, err) == (0, "") and out.startswith(f"Usage: paceline {command}")


def test_the_installed_command_and_the_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("paceline")
    commands = [
        [sys.executable, "-m", "paceline", "--version"],
        *([[str(script), "--version"]] if script.exists() else []),
    ]
    assert {subprocess.run(c, capture_output=True, text=True).stdout for c in commands} == {f"{__version__}\n"}


def test_a_reader_that_leaves_early_meets_no_traceback() -> None:
    listing = subprocess.Popen(
        [sys.executable, "-m", "paceline", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert listing.stdout is not None and listing.stderr is not None
    listing.stdout.close()
    listing.wait(60)
    assert b"Traceback" not in listing.stderr.read()
    listing.stderr.close()
