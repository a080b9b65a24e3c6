"""SOAP is the paper's algorithm, kept in the turned basis as its authors do."""

import torch

from paceline.core.tolerances import close
from paceline.optim.soap import SOAP

BETA, EPS, LR = 0.9, 1e-8, 0.1


def naive(w: torch.Tensor, grads: list[torch.Tensor], every: int) -> torch.Tensor:
    """Algorithm 3 with both moments in the turned basis: the first is turned back and anew where the basis moves."""
    left, right = (1 - BETA) * grads[0] @ grads[0].T, (1 - BETA) * grads[0].T @ grads[0]
    q_left, q_right = (torch.linalg.eigh(x).eigenvectors.flip(1) for x in (left, right))
    m = v = torch.zeros_like(w)
    for t, g in enumerate(grads[1:], 1):
        turned = q_left.T @ g @ q_right
        m, v = BETA * m + (1 - BETA) * turned, BETA * v + (1 - BETA) * turned**2
        n = (m / (1 - BETA**t)) / ((v / (1 - BETA**t)).sqrt() + EPS / (1 - BETA**t) ** 0.5)
        w = w - LR * q_left @ n @ q_right.T
        m = q_left @ m @ q_right.T
        left, right = BETA * left + (1 - BETA) * g @ g.T, BETA * right + (1 - BETA) * g.T @ g
        if t % every == 0:
            rows = torch.diag(q_left.T @ left @ q_left).argsort(descending=True)
            columns = torch.diag(q_right.T @ right @ q_right).argsort(descending=True)
            v = v[rows][:, columns]
            q_left = torch.linalg.qr(left @ q_left[:, rows]).Q
            q_right = torch.linalg.qr(right @ q_right[:, columns]).Q
        m = q_left.T @ m @ q_right
    return w


def test_steps_are_those_of_the_algorithm() -> None:
    generator = torch.Generator().manual_seed(0)
    for every in (1, 3, 50):
        w = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        grads = [torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(20)]
        p = torch.nn.Parameter(w.clone())
        optimizer = SOAP([p], LR, (BETA, BETA), EPS, weight_decay=0.0, every=every)
        for g in grads:
            p.grad = g
            optimizer.step()
        # the first gradient's L has rank 4 of 5, but its null space is one line: eigenvectors differ by signs alone
        assert close(p, naive(w, grads, every), torch.float64)


def test_the_first_gradient_moves_nothing_and_long_sides_are_not_turned() -> None:
    p = torch.nn.Parameter(torch.ones(3, 7))
    optimizer = SOAP([p], weight_decay=0.0, largest=5)
    p.grad = torch.randn(3, 7)
    optimizer.step()
    assert torch.equal(p, torch.ones(3, 7))
    assert {"gram_0", "basis_0"} < set(optimizer.state[p]) and "gram_1" not in optimizer.state[p]


def test_the_basis_stays_orthogonal() -> None:
    p = torch.nn.Parameter(torch.zeros(6, 6, dtype=torch.float64))
    optimizer = SOAP([p], every=2)
    for seed in range(30):
        p.grad = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        optimizer.step()
    q = optimizer.state[p]["basis_0"]
    assert close(q.T @ q, torch.eye(6, dtype=torch.float64), torch.float64)
