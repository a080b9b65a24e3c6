"""Facts about the claim of the mixture of experts: its meter, its sham, what its verdict rests on."""

import math
from dataclasses import replace

import pytest
import torch

from paceline.blocks import moe as block
from paceline.claims._run import modules_of
from paceline.claims.blocks import moe as claim
from paceline.lm.config import build
from paceline.race.contestant import Model


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    return claim.design("smoke", tmp_path_factory.mktemp("corpora"))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[5, 5], [5, 5]], 0.0),
        ([[10, 0], [0, 10]], 1.0),
        ([[3, 1], [1, 3]], 1 - (0.75 * math.log2(4 / 3) + 0.25 * 2)),
    ],
)
def test_information_by_hand(counts, expected):
    assert claim.information(torch.tensor(counts, dtype=torch.float64)) == pytest.approx(expected, abs=1e-12)


def test_the_sham_has_the_same_counts_in_another_order(design):
    whole = build(design.contestants[0].config(design.events[0]))
    claim.deal(whole)
    dealt, use = whole.stack[0].feed_forward, torch.tensor([[9, 5, 2, 0], [1, 0, 0, 15]])
    found = [dealt.count(use)[0].tolist() for _ in range(20)]
    assert all(sorted(counts) == [2, 5, 10, 15] for counts in found) and len({*map(tuple, found)}) > 1


def test_every_layer_has_a_meter_of_what_it_tells_of_the_domain(design):
    model = build(design.contestants[0].config(design.events[0]))
    found = claim.specialisation(model, design.events[0].task)
    assert found.keys() == {"domain.0", "domain.1"} and all(0 < value < 1 for value in found.values())


def test_a_verdict_rests_on_the_feed_forwards_block(design):
    other = replace(design, contestants=[Model("ema", feed_forward="moe(experts=2)")])
    assert "paceline.blocks.moe" in modules_of("paceline.claims.mixers.seqboat", other)
    assert {"paceline.mixers.attention", "paceline.data.domains"} <= set(modules_of(claim.__name__, design))


def test_other_experts_are_another_race():
    heavy, light = (claim.Mixture("global", (1e-3,), "x", balance) for balance in (0.1, 0.03))
    assert heavy.identity() != light.identity() and heavy.name == light.name


def test_faithful_is_lost_by_small_departures(monkeypatch):
    assert claim.faithful() is True
    plain = block.MoE.count
    monkeypatch.setattr(block.MoE, "count", lambda self, use: plain(self, use) + 1)
    assert claim.faithful() is False
    monkeypatch.undo()
    monkeypatch.setattr(block.MoE, "begin_step", lambda self: None)
    assert claim.faithful() is False
