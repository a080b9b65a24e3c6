"""A field of mixers: any shape that it was built for, both ways, and it learns."""

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.flows.cfm import CFM
from paceline.lm.field import MixerField


@pytest.mark.parametrize("plan", [("attention", "attention"), ("ema", "ema"), ("seqboat(memory=8)", "attention")])
def test_every_place_hears_of_every_other_and_of_the_time(plan: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    field = MixerField(3, 7, plan, 16)
    x, t = torch.randn(2, 7, 3), torch.tensor([0.2, 0.8])
    assert torch.equal(field(x, t), torch.zeros(2, 7, 3))
    torch.nn.init.normal_(field.out.weight)
    out = field(x, t)
    assert (out - field(x, t + 0.1)).abs().amin((1, 2)).min() >= 0 and not torch.equal(out, field(x, t + 0.1))
    for place in (0, 6):
        changed = x.clone()
        changed[:, place] += 1
        moved = (field(changed, t) - out).abs().amax(2)
        assert (moved[:, 0] > 0).all() and (moved[:, 6] > 0).all()


def test_it_learns_a_shift() -> None:
    torch.manual_seed(0)
    field, flow = MixerField(2, 5, ("ema", "ema"), 16), CFM()
    optimizer = torch.optim.Adam(field.parameters(), 1e-2)
    for _ in range(60):
        x0 = torch.randn(32, 5, 2) * 0.1
        loss = flow.loss(field, x0, x0 + 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    end = flow.sample(field, torch.zeros(8, 5, 2), 4)
    assert (end - 2).abs().max() < 0.3


def test_what_it_was_not_built_for_is_refused() -> None:
    field = MixerField(3, 7, d_model=8)
    with pytest.raises(PacelineError, match="7 places of 3 channels"):
        field(torch.zeros(2, 6, 3), torch.zeros(2))
    with pytest.raises(PacelineError, match="two layers"):
        MixerField(3, 7, ("attention",))
