"""SOAP is the paper's algorithm, kept in the turned basis as its authors do."""

import torch

from paceline.core.tolerances import close
from paceline.optim.soap import SOAP

BETA, EPS, LR = 0.9, 1e-8, 0.1
AUTHORS = (
    -0.26595832489854343, 0.7136929382486137, 0.8543276343996489, 0.4730257497184315, -0.9971343321625599,
    -0.68569810526653, -0.6029088028549613, 0.1254906386680732, 0.7633239525759827, 0.25923782626728087,
    -0.6842705581356046, -1.1497632535513276,
)  # fmt: skip
"""What the authors' code (github.com/nikhilvyas/SOAP, a1e5535, its casts to float32 lifted) gives in float64."""


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


def test_twelve_steps_end_where_the_authors_code_ends() -> None:
    """A matrix of sine waves and gradients that are sine waves too, with a refresh every 3 steps."""
    p = torch.nn.Parameter(torch.arange(12, dtype=torch.float64).sin().view(3, 4))
    optimizer = SOAP([p], lr=0.1, weight_decay=0.0, every=3)
    for step in range(13):
        p.grad = (torch.arange(12, dtype=torch.float64) ** 2 * (0.3 + 0.1 * step) + step).sin().view(3, 4)
        optimizer.step()
    assert close(p.detach().flatten(), torch.tensor(AUTHORS, dtype=torch.float64), torch.float64)
