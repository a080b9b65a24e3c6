"""Muon's step is that of torch's own Muon, up to the bfloat16 in which torch iterates."""

import torch

from paceline.optim.muon import Muon, orthogonal


def test_singular_values_come_near_one() -> None:
    x = torch.randn(8, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for matrix in (x, x.T):
        values = torch.linalg.svdvals(orthogonal(matrix))
        assert values.min() > 0.6 and values.max() < 1.3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        assert ((u.T @ orthogonal(matrix) @ v.T) - torch.diag(values)).abs().max() < 0.5  # the same singular vectors


def test_steps_are_torchs() -> None:
    torch.manual_seed(0)
    w = torch.randn(12, 8)
    mine, its = torch.nn.Parameter(w.clone()), torch.nn.Parameter(w.clone())
    ours = Muon([mine], lr=0.01, weight_decay=0.1)
    theirs = torch.optim.Muon([its], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(6):
        grad = torch.randn(12, 8)
        mine.grad, its.grad = grad.clone(), grad.clone()
        ours.step()
        theirs.step()
    moved = (its - w).norm()
    assert (mine - its).norm() < 0.01 * moved  # eight bits of mantissa, five rounds
