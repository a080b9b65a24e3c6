"""What the claims on guided byte models share: distances by hand, rewards by hand, and a sham that is one."""

import math

import pytest
import torch

from paceline.claims._guiding import draw
from paceline.claims._preferences import HEAD, PROMPT, REWARDS, TOP, WholeTexts, token_reward
from paceline.claims.decode.layerskip import astray
from paceline.decode._guided import GuidedLM
from paceline.lm.config import Config, build
from paceline.lm.early_exit import EarlyExit, attach, rotational
from paceline.lm.table import Table

BASE, MOVED = ([[0.5, 0.3, 0.2]] * 3), ([[0.1, 0.1, 0.8]] * 3)


def test_drawn_texts_know_their_distance_and_their_likelihood():
    base, moved = (Table(torch.tensor(p, dtype=torch.float64).log() + 2) for p in (BASE, MOVED))
    drawn = draw(moved, base, torch.zeros(500, 2, dtype=torch.long), 4, seed=1)
    kl = sum(p * math.log(p / q) for p, q in zip(MOVED[0], BASE[0], strict=True))
    assert drawn.kl.tolist() == pytest.approx([4 * kl] * 500)
    nats = -torch.tensor(BASE[0], dtype=torch.float64).log()[drawn.ids].sum(1)
    assert drawn.nats.tolist() == pytest.approx(nats.tolist())
    assert (drawn.ids == 2).double().mean().item() == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(
    ("reward", "text", "expected"), [("short_lines", b"ab\ncde\n", -3), ("vowels", b"AbeXio\n", 4)]
)
def test_rewards_by_hand(reward, text, expected):
    assert REWARDS[reward](torch.tensor([list(text)])).item() == expected


def tiny():
    torch.manual_seed(0)
    return build(Config(256, 8, 16, ("attention(heads=2)",) * 2)).eval()


def test_the_reward_of_whole_texts_moves_the_likeliest_bytes_by_their_own_scores():
    base, judge = tiny(), tiny()
    with torch.no_grad():
        judge.embedding.weight.mul_(2)
        ids = torch.arange(12).view(2, 6)
        plain, _ = base(ids)
        moved, _ = GuidedLM(base, WholeTexts(judge, 3.0))(ids)
        likeliest = plain[:, -1].topk(TOP).indices
        scores = torch.stack([judge.logits(torch.cat((ids, likeliest[:, [i]]), 1))[:, -1, HEAD] for i in range(TOP)], 1)
        change = (moved - plain)[:, -1]
    torch.testing.assert_close(change.gather(1, likeliest), 3 * (scores - scores.mean(1, keepdim=True)))
    assert (change != 0).sum().item() <= 2 * TOP


def test_prompts_earn_nothing():
    model, ids = tiny(), torch.arange(2 * PROMPT).view(1, -1)
    with torch.no_grad():
        said = model.logits(ids).log_softmax(-1)
        expected = sum(said[0, place - 1, ids[0, place]] for place in range(PROMPT, 2 * PROMPT))
        torch.testing.assert_close(token_reward(model, ids)[0], expected)


def test_the_sham_s_exits_learn_another_text():
    losses = []
    ids = torch.stack((torch.arange(6), torch.arange(100, 106)))
    for order, sham in (([0, 1], False), ([0, 1], True), ([0, 0], True), ([0, 0], False)):
        model = tiny().train()
        part = attach(model, 10, dropout=0.0, curriculum=rotational(1))
        if sham:
            astray(part)
        assert isinstance(part, EarlyExit)
        model.logits(ids[order])
        losses.append(model.auxiliary_loss().item())
    own, other, same, plain = losses
    assert own != pytest.approx(other) and same == pytest.approx(plain)
