"""SB-CFM: the plan has its marginals, and lies between the assignment and chance."""

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.flows._contract import squared_distances
from paceline.flows.cfm import CFM
from paceline.flows.ot_cfm import OTCFM
from paceline.flows.sb_cfm import SBCFM

DRAWS = torch.Generator().manual_seed(1)
X0, X1 = (torch.randn(20, 2, generator=DRAWS, dtype=torch.float64) for _ in range(2))


def test_each_point_weighs_the_same() -> None:
    plan = SBCFM(0.5).plan(squared_distances(X0, X1))
    assert torch.allclose(plan.sum(0), torch.full((20,), 0.05, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(plan.sum(1), torch.full((20,), 0.05, dtype=torch.float64), atol=1e-6)


def test_the_plan_goes_from_the_assignment_to_chance() -> None:
    cost = squared_distances(X0, X1)
    means = [float((SBCFM(sigma, 20_000).plan(cost) * cost).sum()) for sigma in (0.05, 0.5, 20.0)]
    best = OTCFM()
    best.pair(X0, X1)
    assert means == sorted(means)
    assert means[0] == pytest.approx(best.meters()["coupling_cost"], rel=0.02)
    assert means[2] == pytest.approx(float(cost.mean()), rel=0.02)


def test_a_bridge_without_diffusion_is_refused() -> None:
    with pytest.raises(PacelineError, match="sigma above 0"):
        SBCFM(0.0)


def test_independent_pairs_are_the_rows_as_they_come() -> None:
    a, b = CFM().pair(X0, X1)
    assert torch.equal(a, X0) and torch.equal(b, X1)
