"""Facts about RMSNorm."""

import pytest
import torch

from paceline.blocks.rmsnorm import RMSNorm
from paceline.core.tolerances import close


@pytest.mark.parametrize("scale", [1e-2, 3.0, 1e4])
def test_the_scale_of_the_input_does_not_matter(scale):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    norm = RMSNorm(16, eps=0.0).double()
    torch.nn.init.normal_(norm.norm.weight)
    assert close(norm(scale * x), norm(x), x.dtype)
    assert close(norm(-x), -norm(x), x.dtype)


def test_rows_have_root_mean_square_one_then_the_gain():
    x = torch.tensor([[3.0, 4.0]])
    norm = RMSNorm(2, eps=0.0)
    with torch.no_grad():
        norm.norm.weight.copy_(torch.tensor([1.0, 10.0]))
    assert close(norm(x), torch.tensor([[3.0, 40.0]]) / 12.5**0.5, x.dtype)


def test_eps_keeps_zeros_finite():
    assert torch.equal(RMSNorm(4)(torch.zeros(1, 4)), torch.zeros(1, 4))
