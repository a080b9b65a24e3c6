"""Facts about GPTQ that only it promises."""

import pytest
import torch
from torch import nn

from paceline.compress._columns import by_columns, hessian
from paceline.compress._contract import example_ids
from paceline.compress._grid import encode, weight_scale
from paceline.compress.gptq import GPTQ
from paceline.compress.rtn import RTN
from paceline.core.errors import PacelineError
from paceline.core.state import State


def plainly(w, h, scale):
    """One column after the other, the inverse of what is left taken anew each time."""
    w, h = w.clone(), h.clone()
    h += 0.01 * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)
    codes = torch.zeros_like(w)
    for j in range(len(h)):
        inverse = torch.linalg.inv(h[j:, j:])
        codes[:, j] = (w[:, j] / scale[:, 0]).round().clamp(-8, 7)
        error = (w[:, j] - codes[:, j] * scale[:, 0]) / inverse[0, 0]
        w[:, j:] -= error[:, None] * inverse[0]
    return codes


@pytest.mark.parametrize("width", [5, 40, 77])
def test_it_is_the_column_by_column_algorithm(width):
    torch.manual_seed(0)
    w, x = torch.randn(6, width, dtype=torch.float64), torch.randn(200, width, dtype=torch.float64)
    x = x + x[:, :1]
    scale = weight_scale(w, 4)
    h = hessian(x)
    assert torch.equal(by_columns(w, h, scale, 4).double(), plainly(w, h, scale))


def test_its_outputs_are_nearer_than_those_of_rounding_to_nearest():
    torch.manual_seed(0)
    w, x = torch.randn(16, 64), torch.randn(300, 64) @ torch.randn(64, 64)
    scale = weight_scale(w, 4)
    errors = [
        (x @ (codes * scale - w).T).norm() for codes in (by_columns(w, hessian(x), scale, 4), encode(w, scale, 4))
    ]
    assert errors[0] < 0.8 * errors[1]


class Chain(nn.Module):
    """Two maps, and one that nothing reads."""

    vocab_size = 8

    def __init__(self):
        super().__init__()
        self.first, self.second, self.idle = (nn.Linear(16, 16) for _ in range(3))
        self.head = nn.Linear(16, 8)

    def initial_state(self, batch):
        return State((), 0)

    def forward(self, ids, state):
        x = torch.sin(ids.unsqueeze(-1) * torch.arange(1.0, 17.0))
        return self.head(self.second(self.first(x).relu())), State((), ids.shape[1])


def test_maps_that_the_text_does_not_reach_are_rounded_to_nearest_and_the_head_stays():
    torch.manual_seed(0)
    chain = Chain()
    made, nearest = GPTQ(ids=example_ids()).apply(chain), RTN().apply(chain)
    assert torch.equal(made.idle.packed, nearest.idle.packed)
    assert not torch.equal(made.second.packed, nearest.second.packed)
    assert made.head is chain.head


def test_what_cannot_work_is_refused():
    for wrong, said in [({"weights": 3}, "weights must take 4, 8 or 16"), ({"group": -1}, "group must be 0 or more")]:
        with pytest.raises(PacelineError, match=said):
            GPTQ(**wrong)
    for how, said in [
        (GPTQ(), "no tokenizer for calibration text: give ids"),
        (GPTQ(16, ids=example_ids()), "rounds weights"),
        (GPTQ(group=5, ids=example_ids()), "no whole groups of 5"),
        (GPTQ(cache=4, ids=example_ids()), "no cache that could take 4 bits"),
    ]:
        with pytest.raises(PacelineError, match=said):
            how.apply(Chain())
