"""Attention of a piece of queries to what came before and to itself."""

import pytest
import torch

from paceline.context._contract import read
from paceline.core.tolerances import close


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "heads", "groups", "length", "keys"), [(1, 9, 3, 40, 100), (2, 4, 4, 33, 34)])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_past_and_own_keys_are_joined_as_a_mask_tells(
    dtype: torch.dtype, batch: int, heads: int, groups: int, length: int, keys: int, scale: float
) -> None:
    """Also where the scores are so far apart that one part gets all."""
    torch.manual_seed(0)
    q = scale * torch.randn(batch, heads, length, 8, dtype=dtype)
    k, v = torch.randn(2, batch, groups, keys, 8, dtype=dtype)
    mask = torch.ones(length, keys, dtype=torch.bool).tril(keys - length)[None, None]
    assert close(read(q, k, v), read(q, k, v, mask), dtype)


@pytest.mark.parametrize("wanted", [0, 1, 2], ids=["q", "k", "v"])
def test_gradients_flow_where_they_are_wanted(wanted: int) -> None:
    """Of queries, keys or values alone."""
    q, k, v = torch.randn(3, 1, 2, 80, 8, dtype=torch.float64).unbind()
    given = [q[:, :, -40:], k, v]
    given[wanted].requires_grad_()
    mask = torch.ones(40, 80, dtype=torch.bool).tril(40)[None, None]
    ours, masked = (torch.autograd.grad(read(*given, m).square().sum(), given[wanted])[0] for m in (None, mask))
    assert close(ours, masked, torch.float64)
