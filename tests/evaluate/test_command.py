"""`paceline evaluate` on a saved model of bytes: a table, JSON, a picture, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from paceline.cli.evaluate import run
from paceline.core.errors import PacelineError
from paceline.lm.checkpoint import save_model
from paceline.lm.config import Config, build


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(0)
    config = Config(256, 8, 8, ("ema",), task="text")
    save_model(build(config), config, tmp_path / "model")
    return str(tmp_path / "model")


def test_every_length_is_asked(model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(model, "latent_list(operations=2)", "400,300", 2, False, tmp_path / "x.svg", True)
    told = json.loads(capsys.readouterr().out)
    assert [row["length"] for row in told["lengths"]] == [300, 400]
    assert all(0 <= row["score"] <= 1 and row["items"] == 2 for row in told["lengths"])
    assert told["floor"] == 0.25 and "<svg" in (tmp_path / "x.svg").read_text()


def test_the_table_names_model_and_score(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(model, "idk", "700", 1, True, None, False)
    told = capsys.readouterr().out
    assert "I don't know" in told and "700" in told and "written answers" in told


@pytest.mark.parametrize(
    ("how", "lengths", "items", "match"),
    [
        ("greedy", "300", 1, "no evaluation"),
        ("latent_list", "a few", 1, "no numbers"),
        ("latent_list", "0,300", 1, "between 1 and"),
        ("latent_list", "300", 0, "--items"),
        ("latent_list", "20", 1, "greater length"),
        ("latent_list(depth=3)", "300", 1, "depth"),
    ],
)
def test_what_makes_no_sense_is_refused(model: str, how: str, lengths: str, items: int, match: str) -> None:
    with pytest.raises(PacelineError, match=match):
        run(model, how, lengths, items, False, None, False)
