"""Facts about the prediction: what follows from its formulas, and what the command refuses and says."""

import json
import math

import pytest

from paceline.cli.plan import run
from paceline.core.errors import PacelineError
from paceline.parallel._contract import Shape
from paceline.parallel._measure import measure
from paceline.parallel._plan import METHODS, Machine, predict

MACHINE = Machine(flops=1e14, bandwidth=1e10, message=2e-5, hop=2e-6)


def shape(ranks: int, length: int = 1 << 20) -> Shape:
    return Shape(1, 16, length, 128, 128, ranks, 0, 2)


@pytest.mark.parametrize("method", METHODS)
def test_one_device_waits_for_nobody_and_halving_the_work_halves_the_products(method: str) -> None:
    alone = predict(method, shape(1), 4, MACHINE)
    assert alone.waiting == 0 and alone.traffic.total == 0
    endless = Machine(1e14, math.inf, 1e-30, 1e-30)
    assert predict(method, shape(2), 4, endless).seconds == pytest.approx(alone.seconds / 2)
    assert predict(method, shape(1), 8, MACHINE).seconds == pytest.approx(2 * alone.seconds)


def test_by_hand_for_two_devices() -> None:
    machine, one = Machine(100.0, 10.0, 1.0, 0.5), Shape(1, 1, 4, 1, 1, 2, 0, 4)
    rest = 3 * 24 * 2 / 100  # two tokens of width 1
    states, inside, travel = 4 / 100, 2 * 2 * 2 * 2 / 100, 0.5 + 4 / 10
    expected = rest + sum(2 * states * times + max(times * inside, travel) for times in (1, 2))
    assert predict("lasp2", one, 1, machine).seconds == pytest.approx(expected)
    chain = rest + sum(2 * states * times + max(times * inside, 1 + 4 / 10) for times in (1, 2))
    assert predict("lasp", one, 1, machine).seconds == pytest.approx(chain)
    block, hop = 2 * 2 * 2 * 2 / 100, 1 + 16 / 10  # two tokens' keys and values are 16 bytes
    ring = rest + max(block, hop) + block + 2 * max(2.5 * block, 1 + 32 / 10)
    assert predict("ring", one, 1, machine).seconds == pytest.approx(ring)
    gathered = rest + 3.5 * 2 * block + 2 * (0.5 + 16 / 10)
    assert predict("gather_attention", one, 1, machine).seconds == pytest.approx(gathered)


def test_the_linear_methods_win_at_long_lengths_and_a_cheap_hop_is_what_lasp2_saves() -> None:
    for ranks in (64, 256, 1_024):
        seconds = {method: predict(method, shape(ranks), 16, MACHINE).seconds for method in METHODS}
        assert seconds["lasp2"] < seconds["lasp"] < min(seconds["ring"], seconds["gather_attention"])
        dear = Machine(MACHINE.flops, MACHINE.bandwidth, MACHINE.message, MACHINE.message)
        assert predict("lasp2", shape(ranks), 16, dear).seconds == predict("lasp", shape(ranks), 16, dear).seconds


def test_what_is_measured_here_is_a_machine() -> None:
    machine = measure(2)
    assert 1e6 < machine.flops < 1e15 and 1e4 < machine.bandwidth < 1e13
    assert 0 < machine.hop <= machine.message < 10


GIVEN = dict(
    length=4_096, devices=[64, 1_024], layers=4, heads=8, width=64, kv_heads=0, batch=1, element=2, flops=1e14,
    bandwidth=1e10, latency=1e-5, hop=None, as_json=False,
)  # fmt: skip


def test_the_command_says_that_it_predicts(capsys: pytest.CaptureFixture[str]) -> None:
    run(**GIVEN)  # type: ignore[arg-type]
    said = " ".join(capsys.readouterr().out.split())
    assert "A prediction from 1e+14 operations/s" in said and "Nothing was run at these sizes" in said
    assert "measured" not in said and "lasp2" in said and "1,024" in said


def test_the_command_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    run(**{**GIVEN, "as_json": True})  # type: ignore[arg-type]
    told = json.loads(capsys.readouterr().out)
    assert told["machine"]["hop"] == told["machine"]["message"] == 1e-5
    assert [(p["method"], p["devices"]) for p in told["predictions"]] == [(m, n) for n in (64, 1_024) for m in METHODS]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"devices": [3]}, "4096 tokens do not divide over 3 devices"),
        ({"devices": [0]}, "--devices must be at least 1, not 0"),
        ({"heads": 0}, "--heads must be at least 1"),
        ({"kv_heads": 3}, "--kv-heads 3 does not divide --heads 8"),
        ({"bandwidth": 0.0}, "bandwidth must be above 0, not 0"),
        ({"flops": -1.0, "latency": None}, "flops must be above 0, not -1"),
    ],
)
def test_the_command_refuses(change: dict[str, object], words: str) -> None:
    with pytest.raises(PacelineError, match=words):
        run(**{**GIVEN, **change})  # type: ignore[arg-type]
