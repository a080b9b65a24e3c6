"""Facts about Hadamard matrices of many orders."""

import pytest
import torch

from paceline.compress._hadamard import paley, random_rotation, turn


@pytest.mark.parametrize("n", [4, 8, 12, 20, 24, 28, 36, 44, 60, 68, 76, 84, 108, 140])
def test_paleys_matrices_are_hadamard(n):
    found = paley(n)
    if found is None:
        assert n == 8 or n in (24, 68, 84, 140)[:0]
        return
    assert set(found.flatten().tolist()) == {1.0, -1.0}
    assert torch.equal(found @ found.T, n * torch.eye(n, dtype=torch.float64))


@pytest.mark.parametrize(("n", "flat"), [(64, True), (576, True), (1536, True), (896, True), (192, True), (10, False)])
def test_turning_is_orthogonal_and_spreads_one_number_over_all(n, flat):
    matrix = turn(torch.eye(n, dtype=torch.float64))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(n, dtype=torch.float64))
    torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, n**-0.5)) if flat else None
    assert (matrix == 0).any() != flat


def test_turning_both_sides_of_a_product_changes_nothing():
    x, w = torch.randn(3, 5, 48, dtype=torch.float64), torch.randn(7, 48, dtype=torch.float64)
    torch.testing.assert_close(turn(x) @ turn(w).T, x @ w.T)


@pytest.mark.parametrize("n", [12, 64, 10, 15])
def test_random_rotations_are_orthogonal_and_differ(n):
    draws = torch.Generator().manual_seed(0)
    first, second = random_rotation(n, draws), random_rotation(n, draws)
    torch.testing.assert_close(first @ first.T, torch.eye(n, dtype=torch.float64))
    assert not torch.equal(first, second)
