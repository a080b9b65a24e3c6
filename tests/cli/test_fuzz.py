"""A sample of stress/fuzz.py, and that its oracle can fail."""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from paceline.core.errors import PacelineError

SAMPLE = {"commands": 120, "parts": 500, "files": 600, "checkpoints": 200, "results": 12}


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "stress"))
        import fuzz

        fuzz.prepare()
        yield fuzz


def tally(fuzz: ModuleType, target: str, cases: int, folder: Path, seed: int = 1) -> tuple[object, list[str]]:
    said: list[str] = []
    found, place = fuzz.Tally(), fuzz.Place(folder / "fuzz")
    with place.lived_in():
        fuzz.run(target, range(cases), seed, place, found, said.append)
    return found, [line for line in said if line]


@pytest.mark.parametrize("target", SAMPLE)
def test_hostile_input_ends_well_or_in_a_sentence(target: str, fuzz: ModuleType, tmp_path: Path) -> None:
    found, failures = tally(fuzz, target, SAMPLE[target], tmp_path)
    assert failures == [] and found.failed == 0  # type: ignore[attr-defined]
    assert found.cases == SAMPLE[target] and 0 < found.refused < found.cases  # type: ignore[attr-defined]


def test_every_target_has_a_share_and_a_sample(fuzz: ModuleType) -> None:
    assert fuzz.TARGETS.keys() == SAMPLE.keys()
    assert sum(target.share for target in fuzz.TARGETS.values()) == pytest.approx(1)


def raises(error: BaseException) -> Callable[[object], object]:
    def use(_: object) -> object:
        raise error

    return use


@pytest.mark.parametrize(
    ("use", "wrong"),
    [
        (raises(KeyError("x")), KeyError),
        (raises(MemoryError()), MemoryError),
        (raises(RecursionError()), RecursionError),
        (raises(PacelineError()), Exception),
        (lambda _: warnings.warn("odd", stacklevel=1), UserWarning),
        (lambda _: time.sleep(10), BaseException),
        (lambda _: None, None),
        (raises(PacelineError("Mend it.")), PacelineError),
    ],
    ids=["exception", "memory", "recursion", "no words", "warning", "hang", "success", "refusal"],
)
def test_the_oracle_tells_defects_from_refusals(
    use: Callable[[object], object], wrong: type | None, fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "LIMIT", 0.2)
    found = fuzz.judge(fuzz.Target(None, use, 1.0), None)
    assert found is None if wrong is None else isinstance(found, wrong)
    assert isinstance(found, PacelineError) == (wrong is PacelineError)


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("paceline.data._reader._choose", "files"),
        ("paceline.cli.catalogue.find", "commands"),
        ("paceline.lm.checkpoint.verify", "checkpoints"),
        ("paceline.report.page.checked", "results"),
        ("paceline.lm.config.check", "parts"),
    ],
)
def test_a_planted_defect_is_found(
    place: str, target: str, fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object, **__: object) -> None:
        raise LookupError("planted")

    monkeypatch.setattr(place, defect)
    found, failures = tally(fuzz, target, 120, tmp_path)
    assert json.loads(json.dumps(fuzz.asdict(found)))["causes"]  # as it is written to results/fuzz.json
    assert found.failed and "planted" in failures[0] and "--only " + target in failures[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "answer", ["paceline: Two\nlines.\n", "Traceback (most recent call last)\n", "", "paceline: \x1b[2J.\n"]
)
def test_an_exit_without_one_plain_sentence_is_a_defect(
    answer: str, fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def main() -> None:
        sys.stderr.write(answer)
        sys.exit(1)

    monkeypatch.setattr("paceline.cli.main", main)
    with pytest.raises(fuzz.Unclear):
        fuzz.use_command(["list"])


def test_a_file_written_elsewhere_is_found(fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.cli.catalogue.find", lambda *_: Path.home().joinpath("stray").touch())
    _, failures = tally(fuzz, "commands", 120, tmp_path)
    assert any("stray" in line and "wrote" in line for line in failures)
