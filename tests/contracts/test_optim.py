"""What every optimizer of the family holds: it descends, resumes bit for bit, and leaves the rest alone."""

import copy
from typing import Any

import pytest
import torch

from paceline.core.discovery import load, methods, part
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close

OPTIMIZERS = methods("optim")
every_one = pytest.mark.parametrize("name", OPTIMIZERS)


def make(name: str, params: Any, **more: Any) -> torch.optim.Optimizer:
    return part("optim", name)(params, **{**load("optim", name).example(), **more})


def parameters() -> list[torch.nn.Parameter]:
    """A matrix, a wide one, a vector and a number."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((6, 4), (3, 8), (5,), ())
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def bowl(params: list[torch.nn.Parameter]) -> torch.Tensor:
    """Convex, and ten times steeper in the first row or number than in the last."""
    steepness = [torch.linspace(10, 1, max(1, p.shape[0] if p.ndim else 1), dtype=p.dtype) for p in params]
    return sum(
        (s.view(-1, *[1] * max(0, p.ndim - 1)) * (p - 0.5) ** 2).sum() for s, p in zip(steepness, params, strict=True)
    )


def descend(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: int) -> list[float]:
    """The bowl's height before each step; the rate falls to nothing, for Muon's steps are of one size."""
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / steps)
        optimizer.zero_grad()
        loss = bowl(params)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@every_one
def test_a_convex_bowl_is_descended(name: str) -> None:
    params = parameters()
    losses = descend(make(name, params), params, 400)
    assert losses[-1] < 1e-3 * losses[0]
    for p in params:
        assert (p - 0.5).abs().max() < 0.05


@every_one
def test_rosenbrocks_valley_is_followed(name: str) -> None:
    """From (-1.2, 1), as a matrix of one row, to (1, 1)."""
    point = torch.nn.Parameter(torch.tensor([[-1.2, 1.0]], dtype=torch.float64))
    optimizer, steps = make(name, [point]), 4000
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        optimizer.zero_grad()
        x, y = point[0]
        loss = (1 - x) ** 2 + 100 * (y - x**2) ** 2
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


@every_one
def test_it_resumes_from_its_state_bit_for_bit(name: str) -> None:
    whole, parts = parameters(), parameters()
    optimizer, first = make(name, whole), make(name, parts)
    for at in range(9):
        for params, one in ((whole, optimizer), (parts, first)):
            one.zero_grad()
            bowl(params).backward()
            one.step()
        if at == 4:
            saved = copy.deepcopy(first.state_dict())
            assert all(isinstance(v, torch.Tensor) for state in saved["state"].values() for v in state.values())
            first = make(name, parts)
            first.load_state_dict(saved)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


@every_one
def test_decay_alone_shrinks_weights(name: str) -> None:
    p = torch.nn.Parameter(torch.ones(3, 3, dtype=torch.float64))
    optimizer = make(name, [p], lr=0.1, weight_decay=0.5)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.step()
    assert p[0, 0].item() + 1e-9 >= 0.95**2 and p[0, 0].item() <= 0.95 + 1e-9


@every_one
def test_a_parameter_without_gradient_stays(name: str) -> None:
    used, idle = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = make(name, [used, idle])
    used.sum().backward()
    optimizer.step()
    optimizer.step()
    assert torch.equal(idle, torch.ones(2, 2)) and not torch.equal(used, torch.ones(2, 2))


@every_one
@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"eps": -1e-8}, {"betas": (1.0, 0.9)}, {"weight_decay": -0.1}])
def test_settings_out_of_range_are_refused(name: str, bad: dict[str, Any]) -> None:
    with pytest.raises(PacelineError, match="cannot work with"):
        part("optim", name)([torch.nn.Parameter(torch.ones(2))], **bad)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adamw"])
@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_what_is_no_matrix_follows_adamw(name: str, shape: tuple[int, ...]) -> None:
    mine, its = (
        torch.nn.Parameter(torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape).double()) for _ in range(2)
    )
    settings: dict[str, Any] = {"lr": 0.1, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.1}
    optimizer = part("optim", name)([{"params": [mine], "matrices": False}], **settings)
    adamw = torch.optim.AdamW([its], **settings)
    for _ in range(5):
        for p, one in ((mine, optimizer), (its, adamw)):
            one.zero_grad()
            (p**4).sum().backward()
            one.step()
    assert close(mine, its, torch.float64)
