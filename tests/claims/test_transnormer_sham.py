"""The sham of the claim on TransNormer decays at rates of the layer's own range, drawn anew each time."""

import torch

from paceline.claims.mixers.transnormer import by_depth, random_rates
from paceline.lm.config import Config, build


def test_rates_lie_between_the_layers_own():
    config = Config(256, 64, 64, ("transnormer",) * 2)
    torch.manual_seed(0)
    method, sham = build(config), build(config)
    by_depth(method)
    random_rates(sham)
    for own, restless in zip(method.mixers, sham.mixers, strict=True):
        low, high = own.rate.min().item(), own.rate.max().item()
        draws = torch.stack([restless.rate for _ in range(50)])
        assert low * (1 - 1e-5) <= draws.min().item() < draws.max().item() <= high * (1 + 1e-5)
        assert draws.max().item() / draws.min().item() > 0.5 * high / low
        assert (restless.theta is None) == (own.theta is None)
    assert method.mixers[0].rate.min() > 100 * method.mixers[1].rate.max()  # the schedule over layers stays
