"""`paceline report` writes a race's page anew, exports its result and refuses what is damaged in a sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from _command import Call, load, sentence
from pyarrow import parquet

from paceline.core.files import seal, write_json
from paceline.report import render

PUBLISHED = Path(__file__).parents[2] / "results" / "race" / "default.json"


@pytest.fixture
def raced(call: Call) -> Path:
    """The folder of a finished race, in the current one, without its page."""
    folder = Path("raced")
    folder.mkdir()
    (folder / "result.json").write_bytes(PUBLISHED.read_bytes())
    return folder


@pytest.mark.parametrize("what", ["raced", "raced/result.json"])
def test_the_page_is_written_anew(what: str, raced: Path, call: Call) -> None:
    answer = call("report", what)
    assert (answer.code, answer.err, answer.out) == (0, "", "Report: raced/report.html\n")
    assert (raced / "report.html").read_text() == render(load(PUBLISHED))


@pytest.mark.parametrize("name", ["x.html", "x.parquet", "x.csv"])
def test_a_file_to_write_is_written_and_nothing_else(name: str, raced: Path, call: Call) -> None:
    answer = call("report", raced, "--to", f"new/{name}")
    assert (answer.code, answer.err, answer.out) == (0, "", f"Written: new/{name}\n")
    assert [path.name for path in Path("new").iterdir()] == [name] and not (raced / "report.html").exists()
    if name == "x.parquet":
        cells = [row for row in parquet.read_table(f"new/{name}").to_pylist() if row["phase"] == "race"]
        assert [row["score"] for row in cells] == [cell["score"] for cell in load(PUBLISHED)["cells"]]


def test_logging_says_where_the_runs_are(raced: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("paceline.cli.report.log_to_mlflow", lambda *args: seen.append(args) or "a1")
    monkeypatch.setattr("paceline.cli.report.log_to_trackio", lambda *args: seen.append(args) or "g1")
    answer = call("report", raced, "--log", "mlflow")
    assert (answer.code, answer.out) == (0, "Logged to MLflow: experiment paceline, run a1\n")
    answer = call("report", raced, "--log", "trackio", "--project", "ships", "--to", "x.csv")
    assert (answer.code, answer.out) == (0, "Written: x.csv\nLogged to trackio: project ships, group 'g1'\n")
    result = load(PUBLISHED)
    assert seen == [(result, "paceline", raced / "report.html"), (result, "ships")]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--to", "x.txt"), "Cannot write x.txt: give a name that ends in .html, .parquet or .csv."),
        (("--to", "x.txt", "--log", "mlflow"), "Cannot write x.txt: give"),
        (("--log", "mlfow"), "--log takes mlflow or trackio, not 'mlfow'. Did you mean 'mlflow'?"),
        (("--project", "ships"), "--project names where --log puts the runs"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_done(
    options: tuple[str, ...], says: str, raced: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.cli.report.log_to_mlflow", lambda *_: pytest.fail("logged"))
    assert says in sentence(call("report", raced, *options))
    assert [path.name for path in raced.iterdir()] == ["result.json"]


@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_named(
    name: str, raced: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert f"pip install 'paceline[{name}]'" in sentence(call("report", raced, "--log", name))


@pytest.mark.parametrize("options", [(), ("--to", "x.parquet"), ("--to", "x.csv"), ("--log", "mlflow")])
def test_a_result_that_is_damaged_is_one_sentence(options: tuple[str, ...], raced: Path, call: Call) -> None:
    content = PUBLISHED.read_bytes()
    lacking = {key: value for key, value in json.loads(content).items() if key != "cells"}
    for damaged in (b"", content[: len(content) // 2], b"\xff" + content[1:], b"[" * 100_000, b"[]", b'{"schema": 1}',
                    content.replace(b'"schema": 1', b'"schema": 3'), json.dumps(lacking).encode()):  # fmt: skip
        (raced / "result.json").write_bytes(damaged)
        said = sentence(call("report", raced, *options))
        assert "result" in said
    assert [path.name for path in raced.iterdir()] == ["result.json"]


def test_a_folder_without_a_result_is_one_sentence(call: Call) -> None:
    Path("empty").mkdir()
    for what in ("empty", "nowhere"):
        assert f"There is no {what}" in sentence(call("report", what))


def test_the_command_imports_no_torch_and_no_tracker(raced: Path) -> None:
    code = (
        "import sys; sys.argv = ['paceline', 'report', 'raced', '--to', 'x.parquet']\n"
        "from paceline.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'mlflow', 'trackio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "Written: x.parquet\n[]\n", done.stderr


def test_a_digit_that_was_changed_in_a_sealed_result_is_seen(raced: Path, call: Call) -> None:
    whole = seal(json.loads(PUBLISHED.read_text()))
    write_json(raced / "result.json", whole)
    assert call("report", "raced").code == 0
    whole["standings"]["text"][0]["mean"] += 0.001
    write_json(raced / "result.json", whole)
    assert "was damaged or changed: the race's own command writes it anew." in sentence(call("report", "raced"))
