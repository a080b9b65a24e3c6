"""Ways to align race: what is measured, and what preferences are made of."""

import copy

import pytest
import torch

from paceline.align._trainer import Plan
from paceline.align.best_of_n import BestOfN
from paceline.core.errors import PacelineError
from paceline.lm.config import Config, build
from paceline.race.aligning import PRICE, Rewarded, measured, preferences

HELD = [[5, 9, 2], [7, 1]]


def low(prompts, texts):
    """More for lower tokens."""
    return [-float(sum(text)) for text in texts]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(Config(256, 16, 64, ("attention",)))


def test_an_unchanged_model_has_not_strayed_and_a_changed_one_pays_for_it(model):
    items, meters = measured(model, model, None, HELD, low, 4, 0, ())
    assert meters["kl"] == 0.0 and len(items) == 2 and abs(sum(items)) < 1
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.embedding.weight.mul_(3)
    free, strayed = measured(changed, model, None, HELD, low, 4, 0, ())
    assert strayed["kl"] > 0.1
    gain = sum(free) / 2 + PRICE * strayed["kl"]
    assert (gain > 0) == (strayed["reward"] > strayed["usual"])


def test_the_best_of_many_earns_more_at_its_known_divergence(model):
    how = BestOfN(6)
    _, meters = measured(model, model, how, HELD, low, 4, 0, ())
    assert meters["kl"] == pytest.approx(how.divergence) and meters["reward"] > meters["usual"]


def test_preferences_are_ordered_by_the_reward_and_share_a_prompt(model):
    pairs = preferences(model, HELD, low, Plan(rounds=2, texts=8, tokens=4), 0, ())
    assert 4 <= len(pairs) <= 8
    for pair in pairs:
        assert pair.prompt in HELD and sum(pair.chosen) < sum(pair.rejected)
    with pytest.raises(PacelineError, match="nothing can be preferred"):
        preferences(model, HELD, lambda p, t: [0.0] * len(t), Plan(rounds=1, texts=4, tokens=2), 0, ())


def test_prompts_to_train_on_and_held_out_ones_are_apart(tmp_path):
    task = Rewarded([f"prompt {i}" for i in range(8)], "smollm2", "reward.py:early", 4)
    for seed in range(4):
        held, asked = task.drawn(seed), task.asked(seed)
        assert len(held) == 2 and len(asked) == 6 and not set(held) & set(asked)
    with pytest.raises(PacelineError, match="at least 2 are needed"):
        Rewarded(["one"], "smollm2", "reward.py:early", 4)
