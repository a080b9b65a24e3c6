"""Facts about SwiGLU."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from paceline.blocks.swiglu import SwiGLU
from paceline.core.tolerances import close


def test_equals_the_formula():
    torch.manual_seed(0)
    part, x = SwiGLU(6, 10).double(), torch.randn(2, 3, 6, dtype=torch.float64)
    gate, value = part.inner.weight[:10], part.inner.weight[10:]
    inside = x @ gate.T
    expected = (inside / (1 + torch.exp(-inside)) * (x @ value.T)) @ part.outer.weight.T
    assert close(part(x), expected, x.dtype)


def test_one_number_by_hand():
    part = SwiGLU(1, 1)
    with torch.no_grad():
        part.inner.weight.copy_(torch.tensor([[2.0], [3.0]]))
        part.outer.weight.fill_(5.0)
    silu = 2 / (1 + 2.718281828459045**-2)
    assert close(part(torch.tensor([[1.0]])), torch.tensor([[5 * silu * 3]]), torch.float32)


def test_declared_operations_are_what_torch_counts():
    part = SwiGLU(16, 40)
    with FlopCounterMode(display=False) as counter:
        part(torch.randn(2, 7, 16))
    assert part.flops(2, 7) == counter.get_total_flops()
    assert sum(p.numel() for p in part.parameters()) == 3 * 16 * 40
