"""What every objective of alignment promises: whatever lies in `align/` is tested here."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from paceline.align._contract import Choice, Online, Pairwise, Steps
from paceline.core.discovery import load, methods
from paceline.core.tolerances import close

NAMES = methods("align")
MADE = [made for name in NAMES for made in load("align", name).example()]
REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
REWARD = torch.tensor([0.0, 1.0, -0.5, 1.5], dtype=torch.float64)


def label(made: object) -> str:
    return f"{type(made).__name__} {vars(made)}"


online = pytest.mark.parametrize("objective", [m for m in MADE if isinstance(m, Online)], ids=label)
pairwise = pytest.mark.parametrize("objective", [m for m in MADE if isinstance(m, Pairwise)], ids=label)
choice = pytest.mark.parametrize("objective", [m for m in MADE if isinstance(m, Choice)], ids=label)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_of_a_known_kind(name: str) -> None:
    made = load("align", name).example()
    assert made and all(isinstance(m, Online | Pairwise | Choice) for m in made)


def steps(advantages: torch.Tensor, mask: torch.Tensor) -> Steps:
    plain = torch.full_like(advantages, -1.5)
    return Steps(plain, plain, advantages, mask)


@online
def test_where_policy_and_reference_agree_the_loss_is_known(objective: Online) -> None:
    """Without advantages nothing is to be learned but by AWR, which then is plain likelihood."""
    mask = torch.tensor([[True, True, False], [True, False, False]])
    nothing = steps(torch.zeros(2, 3), mask)
    policy = nothing.reference.clone().requires_grad_()
    loss = objective.loss(policy, nothing)
    assert loss.item() == pytest.approx(1.5 if type(objective).__name__ == "AWR" else 0.0, abs=1e-6)
    loss.backward()
    assert policy.grad is not None and not policy.grad[~mask].any()


@online
def test_better_tokens_become_likelier(objective: Online) -> None:
    mask = torch.ones(1, 4, dtype=torch.bool)
    policy = torch.full((1, 4), -1.5).requires_grad_()
    objective.loss(policy, steps(torch.tensor([[1.0, -1.0, 0.5, -0.5]]), mask)).backward()
    pushed = -policy.grad[0]  # type: ignore[index]
    assert pushed[0] > pushed[2] > pushed[3] >= pushed[1]


@online
def test_a_bandit_ends_at_its_best_policy(objective: Online) -> None:
    """Each action as often as the reference takes it; advantages such that the best policy sums to one by itself."""
    if objective.price:  # PPO: of reward less the price of divergence, the reward of each action as it now stands
        strength = objective.price = 0.5
    else:
        strength = objective.strength  # type: ignore[attr-defined]
    best = (REFERENCE.log() + REWARD / strength).log_softmax(0)
    advantage = REWARD - strength * (REFERENCE * (REWARD / strength).exp()).sum().log()
    scores = nn.Parameter(REFERENCE.log().clone())
    optimizer = torch.optim.Adam([scores], 0.02)
    counts = (REFERENCE * 10).round().long()
    for _ in range(1_500):
        policy = scores.log_softmax(0)
        if objective.price:
            old = policy.detach()
            reward = REWARD - strength * (old - REFERENCE.log())
            weight = old.exp() / old.exp().max()  # by repetition, in hundredths
            counts = (weight * 400).round().long().clamp_min(1)
            advantage = reward - (old.exp() * reward).sum()
        else:
            old = REFERENCE.log()
        actions = torch.arange(4).repeat_interleave(counts)
        seen = Steps(old[actions][None], REFERENCE.log()[actions][None], advantage[actions][None],
                     torch.ones(1, len(actions), dtype=torch.bool))  # fmt: skip
        optimizer.zero_grad()
        objective.loss(policy[actions][None], seen).backward()
        optimizer.step()
    assert (scores.softmax(0) - best.exp()).abs().max() < 0.02


@pairwise
def test_equal_policies_lose_log_two_and_the_gap_of_rewards_is_found(objective: Pairwise) -> None:
    nothing = torch.zeros(3, dtype=torch.float64)
    assert objective.loss(nothing, nothing).item() == pytest.approx(math.log(2))
    beta = objective.beta  # type: ignore[attr-defined]
    scores = nn.Parameter(REFERENCE.log().clone())
    optimizer = torch.optim.Adam([scores], 0.1)
    one, other = (index.flatten() for index in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
    wins = (functional.sigmoid(REWARD[one] - REWARD[other]) * 1_000).round().long()  # as Bradley and Terry have it
    chosen, rejected = one.repeat_interleave(wins), other.repeat_interleave(wins)
    for _ in range(600):
        ratio = scores.log_softmax(0) - REFERENCE.log()
        optimizer.zero_grad()
        objective.loss(ratio[chosen], ratio[rejected]).backward()
        optimizer.step()
    best = (REFERENCE.log() + REWARD / beta).softmax(0)
    assert (scores.softmax(0) - best).abs().max() < 0.02


@choice
def test_a_choice_is_as_often_right_as_its_order_says(objective: Choice) -> None:
    draws = torch.Generator().manual_seed(0)
    rewards = torch.rand(20_000, objective.n, generator=draws)
    best = rewards.gather(1, objective.choose(rewards)[:, None]).squeeze(1)
    assert close(best, rewards.amax(1), torch.float32)
    assert best.mean().item() == pytest.approx(objective.n / (objective.n + 1), abs=0.01)
