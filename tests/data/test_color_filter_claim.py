"""The claim on CoLoR-Filter makes each target's models and losses of its own pool, though the cells of a seed share."""

import torch

from paceline.claims.data._pool import LENGTH, Target
from paceline.claims.data.color_filter import TARGETS, losses
from paceline.data.domains import Domains
from paceline.race.contestant import Event, Job


def test_each_target_has_losses_of_its_own(tmp_path):
    Domains(tmp_path / "domains", LENGTH)  # prepares them
    found = {}
    for race, targets in {"both": TARGETS, "alone": TARGETS[1:]}.items():
        for target in targets:
            task = Target(tmp_path / "domains", target, 40, 0.05, 8, 4)
            folder = tmp_path / race / "checkpoints" / "race" / "contestant" / "cell"
            found[race, target] = losses(Job(Event(task, 1_024, 20_000, 4), 0, 0.0, folder))
    assert not torch.equal(found["both", "table"].prior, found["both", "tree"].prior)
    assert torch.equal(found["both", "tree"].prior, found["alone", "tree"].prior)
    assert torch.equal(found["both", "tree"].conditional, found["alone", "tree"].conditional)
