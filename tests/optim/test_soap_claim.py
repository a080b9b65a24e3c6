"""The claim on SOAP turns every side but that of the bytes, and its sham the same sides."""

import pytest
import torch

from paceline.claims.optim.soap import LONGEST, Random
from paceline.lm.config import build, fit
from paceline.optim.soap import SOAP


@pytest.mark.parametrize("kind", ["method", "sham"])
def test_all_sides_but_the_bytes_are_turned(kind):
    torch.manual_seed(0)
    model = build(fit(["attention"] * 2, 256, 60_000))  # as in the budget `cpu`
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    optimizer = SOAP(matrices, largest=LONGEST) if kind == "method" else Random(matrices)
    model.logits(torch.arange(32).view(1, 32)).square().sum().backward()
    optimizer.step()
    sizes = set()
    for weight in matrices:
        for side, size in enumerate(weight.shape):
            assert (f"basis_{side}" in optimizer.state[weight]) == (size != 256)
            sizes.add(size)
    assert 256 in sizes and max(sizes - {256}) > 200


def test_no_two_matrices_of_the_sham_are_turned_alike():
    weights = [torch.nn.Parameter(torch.eye(6)) for _ in range(2)]
    optimizer = Random(weights)
    for weight in weights:
        weight.grad = torch.ones(6, 6)
    optimizer.step()
    first, second = (optimizer.state[weight]["basis_0"] for weight in weights)
    assert not torch.allclose(first, second) and torch.allclose(first @ first.T, torch.eye(6), atol=1e-5)
