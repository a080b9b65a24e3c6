"""What every flow promises: pairs from both samples, a finite loss, and a field that can be learned."""

import math

import pytest
import torch
from torch import Tensor, nn

from paceline.core.discovery import load, methods
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.flows._contract import Flow
from paceline.flows._solve import follow

every_method = pytest.mark.parametrize("method", methods("flows"))


def flows(method: str) -> list[Flow]:
    return load("flows", method).example()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_samples(*shape: int) -> tuple[Tensor, Tensor]:
    draws = seeded(7)
    return (torch.randn(shape, generator=draws, dtype=torch.float64) * size for size in (1.0, 0.5))


class Affine(nn.Module):
    """v = a(t) x + b(t), polynomials of t: holds the flow between two Gaussians, nearly."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(6, 2, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a, b = (torch.stack([t**i for i in range(6)], 1) @ self.weights).unbind(1)
        return a.view(-1, *[1] * (x.dim() - 1)) * x + b.view(-1, *[1] * (x.dim() - 1))


@every_method
@pytest.mark.parametrize("shape", [(9, 3), (6, 4, 2), (1, 5), (5, 2, 2, 2)])
def test_pairs_are_points_of_both_samples(method: str, shape: tuple[int, ...]) -> None:
    for flow in flows(method):
        x0, x1 = two_samples(*shape)
        a, b = flow.pair(x0, x1, seeded())
        assert a.shape == b.shape == x0.shape and a.dtype == x0.dtype
        for drawn, given in ((a, x0), (b, x1)):
            rows = given.flatten(1).tolist()
            assert all(row in rows for row in drawn.flatten(1).tolist())


@every_method
def test_the_loss_is_finite_and_so_are_its_gradients(method: str) -> None:
    for flow in flows(method):
        field = Affine()
        loss = flow.loss(field, *two_samples(16, 4, 2), seeded())
        loss.backward()
        assert loss.isfinite() and loss > 0
        assert field.weights.grad.isfinite().all() and field.weights.grad.abs().sum() > 0


@every_method
def test_the_velocity_is_how_the_point_moves(method: str) -> None:
    """The derivative of x_t by t at fixed noise, by central differences."""
    for flow in flows(method):
        x0, x1 = two_samples(8, 3)
        noise, t = torch.randn(8, 3, generator=seeded(), dtype=torch.float64), torch.linspace(0.1, 0.9, 8).double()
        before, after = (flow.matching(x0, x1, t=t + move, noise=noise).x for move in (-1e-5, 1e-5))
        velocity = flow.matching(x0, x1, t=t, noise=noise).velocity
        assert torch.allclose((after - before) / 2e-5, velocity, atol=1e-6)


@every_method
def test_the_ends_of_a_path_are_its_points(method: str) -> None:
    for flow in flows(method):
        x0, x1 = two_samples(8, 3)
        for t, end in ((0.0, x0), (1.0, x1)):
            at = flow.matching(x0, x1, t=torch.full((8,), t).double(), noise=torch.zeros(8, 3).double())
            assert torch.allclose(at.x, end)


@every_method
def test_a_paired_batch_may_be_split(method: str) -> None:
    """Pairs are drawn over the whole batch; what follows treats each pair alone."""
    for flow in flows(method):
        a, b = flow.pair(*two_samples(12, 4, 2), seeded())
        t, noise = torch.rand(12, generator=seeded()).double(), torch.randn(12, 4, 2, generator=seeded()).double()
        losses, gradients = [], []
        for parts in ([slice(0, 12)], [slice(0, 5), slice(5, 6), slice(6, 12)]):
            field = Affine()
            nn.init.constant_(field.weights, 0.3)
            total = sum(
                flow.error(field, flow.matching(a[p], b[p], t=t[p], noise=noise[p])) * len(t[p]) / 12 for p in parts
            )
            total.backward()
            losses.append(total.detach())
            gradients.append(field.weights.grad)
        assert close(losses[1], losses[0], torch.float64) and close(gradients[1], gradients[0], torch.float64)


@every_method
def test_the_same_generator_draws_the_same(method: str) -> None:
    for flow in flows(method):
        first, second = (flow.loss(Affine(), *two_samples(16, 2), seeded(3)) for _ in range(2))
        assert torch.equal(first, second)


@every_method
def test_the_flow_between_two_gaussians_is_found(method: str) -> None:
    """N(0, 1) to N(1, 0.5): least squares over an affine field, then a sample through it; sigma blurs it."""
    for flow in flows(method):
        field, draws = Affine(), seeded(1)
        points, wanted = [], []
        for _ in range(40):
            x0 = torch.randn(128, 1, generator=draws, dtype=torch.float64)
            x1 = 1 + 0.5 * torch.randn(128, 1, generator=draws, dtype=torch.float64)
            found = flow.matching(*flow.pair(x0, x1, draws), draws)
            inside = (found.t > 0.02) & (found.t < 0.98)  # a bridge's velocity is unbounded at its ends
            x, t = found.x[inside], found.t[inside]
            powers = torch.stack([t**i for i in range(6)], 1)
            points.append(torch.cat((powers * x, powers), 1))
            wanted.append(found.velocity[inside])
        weights = torch.linalg.lstsq(torch.cat(points), torch.cat(wanted)).solution
        field.weights.data = weights.view(2, 6).T.contiguous()
        end = flow.sample(field, torch.randn(4096, 1, generator=draws, dtype=torch.float64), 20, "rk4")
        assert abs(float(end.mean()) - 1) < 0.06
        assert abs(float(end.std()) - math.hypot(0.5, 0 if method == "sb_cfm" else flow.sigma)) < 0.06


@every_method
def test_what_cannot_be_paired_is_refused(method: str) -> None:
    for flow in flows(method):
        for x0, x1 in ((torch.zeros(3, 2), torch.zeros(4, 2)), (torch.zeros(0, 2), torch.zeros(0, 2))):
            with pytest.raises(PacelineError, match="cannot be paired"):
                flow.pair(x0, x1)
        with pytest.raises(PacelineError, match="infinite"):
            flow.pair(torch.full((2, 2), torch.inf), torch.zeros(2, 2))
        with pytest.raises(PacelineError, match="sigma"):
            type(flow)(sigma=-1.0)
        with pytest.raises(PacelineError, match="at least one step"):
            flow.sample(Affine(), torch.zeros(2, 2).double(), 0)


@every_method
def test_the_meters_tell_of_the_last_batch(method: str) -> None:
    for flow in flows(method):
        x0, x1 = two_samples(64, 2)
        a, b = flow.pair(x0, x1, seeded())
        meters = flow.meters()
        assert meters["coupling_cost"] == pytest.approx(float((a - b).square().sum(1).mean()))
        assert meters["shortened"] <= 1


@pytest.mark.parametrize(("solver", "order", "asked"), [("euler", 1, 1), ("midpoint", 2, 2), ("rk4", 4, 4)])
def test_solvers_have_their_order(solver: str, order: int, asked: int) -> None:
    """dx/dt = x (1 + t): x(1) = e^1.5. Twice the steps, 2^order less error."""
    start = torch.ones(1, 1, dtype=torch.float64)
    paths = [follow(lambda x, t: x * (1 + t[:, None]), start, steps, solver) for steps in (20, 40)]
    errors = [abs(float(path.end) - math.exp(1.5)) for path in paths]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)
    assert [path.evaluations for path in paths] == [20 * asked, 40 * asked]


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(PacelineError, match="no solver 'heun'"):
        follow(lambda x, t: x, torch.zeros(1, 1), 2, "heun")
