"""OT-CFM: the pairing is the best of all, and paths that do not bend are told as straight."""

import itertools

import pytest
import torch

from paceline.flows._contract import squared_distances
from paceline.flows._solve import follow, normalised_path_energy, wasserstein
from paceline.flows.ot_cfm import OTCFM


@pytest.mark.parametrize("shape", [(1, 2), (5, 2), (6, 3, 2)])
def test_no_permutation_is_shorter(shape: tuple[int, ...]) -> None:
    draws = torch.Generator().manual_seed(1)
    x0, x1 = (torch.randn(shape, generator=draws, dtype=torch.float64) for _ in range(2))
    a, b = OTCFM().pair(x0, x1)
    orders = itertools.permutations(range(shape[0]))
    least = min(float((x0 - x1[list(order)]).flatten(1).square().sum(1).mean()) for order in orders)
    assert torch.equal(a, x0)
    assert float((a - b).flatten(1).square().sum(1).mean()) == pytest.approx(least)
    assert wasserstein(x0, x1) == pytest.approx(least**0.5)


def test_a_shifted_sample_is_paired_with_itself() -> None:
    """Translation is the optimal map, whatever the order of rows."""
    draws = torch.Generator().manual_seed(2)
    x0 = torch.randn(50, 4, generator=draws)
    flow = OTCFM()
    a, b = flow.pair(x0, (x0 + 3)[torch.randperm(50, generator=draws)])
    assert torch.allclose(b - a, torch.full((50, 4), 3.0))
    assert flow.meters()["coupling_cost"] == pytest.approx(36, rel=1e-5)


def test_the_straight_path_takes_the_least_energy() -> None:
    start = torch.randn(64, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    straight = follow(lambda x, t: torch.ones_like(x), start, 5)
    assert straight.energy == pytest.approx(2) and straight.straightness == pytest.approx(1)
    assert normalised_path_energy(straight, start, start + 1) == pytest.approx(0, abs=1e-9)


def test_a_half_circle_takes_pi_squared_over_four_times_its_chord() -> None:
    """Turning by pi around 0: speed pi r all the way, and the chord is 2 r."""
    turn = torch.tensor([[0.0, torch.pi], [-torch.pi, 0.0]], dtype=torch.float64)
    start = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    path = follow(lambda x, t: x @ turn, start, 50, "rk4")
    assert torch.allclose(path.end, -start, atol=1e-4)
    assert path.straightness == pytest.approx(torch.pi**2 / 4, rel=1e-4)


@pytest.mark.parametrize("numbers", [2, 32, 33, 700])
def test_distances_are_those_of_differences(numbers: int) -> None:
    draws = torch.Generator().manual_seed(4)
    x0, x1 = (100 + torch.randn(9, numbers, generator=draws, dtype=torch.float64) for _ in range(2))
    wanted = (x0[:, None] - x1).square().sum(2)
    assert torch.allclose(squared_distances(x0, x1), wanted, rtol=1e-10)
