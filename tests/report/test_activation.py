"""Facts about the picture of activation: it draws what the cells measured, and says so to those who cannot see it."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from paceline.core.errors import PacelineError
from paceline.report.activation import Activation, activation_picture, activations

TASKS = [{"name": "text", "title": "Real text"}, {"name": "recall", "title": "Recall"}]


def cell(task: str, contestant: str, status: str = "done", **meters: float) -> dict[str, object]:
    named = {name.replace("_", "."): value for name, value in meters.items()}
    return {"task": task, "contestant": contestant, "status": status, "meters": named}


RESULT = {
    "tasks": TASKS,
    "cells": [
        cell("text", "seqboat", activated_0=0.25, activated_10=0.5, distant_0=0.9),
        cell("text", "seqboat", activated_0=0.75, activated_10=0.5),
        cell("text", "seqboat", status="failed"),
        cell("text", "ema"),
        cell("recall", "ema"),
    ],
}


def test_every_finished_seed_of_the_contestant_is_found_layer_by_layer() -> None:
    assert activations(RESULT, "seqboat") == [Activation("Real text", {0: [0.25, 0.75], 10: [0.5, 0.5]})]
    assert activations(RESULT, "ema") == []


def test_the_picture_says_the_shares_and_has_a_dot_for_each_seed(tmp_path: Path) -> None:
    activation_picture(activations(RESULT, "seqboat"), tmp_path / "a.svg")
    root = ET.fromstring((tmp_path / "a.svg").read_text(encoding="utf-8"))
    assert root.get("aria-label") == "Share of tokens activated. Real text: layer 0 50%, layer 10 50%"
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"Real text", "layer 0", "layer 10", "50%"} <= set(words)


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PacelineError, match="nothing to draw"):
        activation_picture(activations(RESULT, "ema"), tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())
