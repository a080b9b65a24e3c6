"""The loops: advantages like a loop over tokens, what is written, and that reward rises while the model stays near."""

import math

import pytest
import torch

from paceline.align._advantages import advantages, whitened
from paceline.align._rollout import batch, log_probabilities, rewards_of, write
from paceline.align._trainer import Pair, Plan, improve, prefer
from paceline.align.apa import APA
from paceline.align.dpo import DPO
from paceline.align.ppo import PPO
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.lm.config import Config, build
from paceline.lm.decoder import Decoder

PROMPTS = [[1, 2], [3, 4, 5], [6]]
FEW = Plan(rounds=8, texts=32, tokens=6, epochs=2, batch=8, lr=3e-3)


def model() -> Decoder:
    torch.manual_seed(0)
    return build(Config(12, 16, 24, ("attention(heads=2)",), "text"))


def threes(prompts: list[list[int]], texts: list[list[int]]) -> list[float]:
    return [float(text.count(3)) for text in texts]


def test_advantages_are_those_of_a_loop_over_tokens() -> None:
    draws = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 3, 7, generator=draws, dtype=torch.float64)
    mask = torch.zeros(3, 7, dtype=torch.bool)
    for row, (start, stop) in enumerate([(0, 7), (2, 5), (3, 4)]):
        mask[row, start:stop] = True
    expected = torch.zeros(3, 7, dtype=torch.float64)
    for row in range(3):
        ahead = 0.0
        for t in reversed(mask[row].nonzero().flatten().tolist()):
            after = values[row, t + 1] if t + 1 < 7 and mask[row, t + 1] else 0.0
            ahead = rewards[row, t] + after - values[row, t] + 0.9 * ahead
            expected[row, t] = ahead
    found = advantages(rewards, values, mask, 0.9)
    assert close(found, expected, torch.float64)
    white = whitened(found, mask)[mask]
    assert white.mean().abs() < 1e-6 and white.std(correction=0) == pytest.approx(1, abs=1e-6)


def test_texts_do_not_depend_on_their_neighbours_lengths_and_end_where_they_end() -> None:
    lm = model()
    texts = write(lm, PROMPTS * 3, 9, 0, ends=(7,))
    assert write(lm, PROMPTS * 3, 9, 0, ends=(7,)) == texts
    assert all(7 not in text[:-1] and (len(text) == 9 or text[-1] == 7) for text in texts)
    assert any(text[-1] == 7 for text in texts)
    ids, mask = batch(PROMPTS * 3, texts)
    found, entropy = log_probabilities(lm, ids)
    for row, (prompt, text) in enumerate(zip(PROMPTS * 3, texts, strict=True)):
        alone = torch.tensor([[*prompt, *text]])
        assert ids[row, 1:][mask[row]].tolist() == text
        torch.testing.assert_close(found[row][mask[row]], log_probabilities(lm, alone)[0][0, len(prompt) - 1 :])
    assert 0 < entropy[mask].mean() <= math.log(12)


@pytest.mark.parametrize("objective", [APA(1.0), PPO(0.02)], ids=["apa", "ppo"])
def test_reward_rises_and_divergence_is_told(objective: APA | PPO) -> None:
    lm = model()
    before = lm.state_dict()["embedding.weight"].clone()
    told = []
    rounds = improve(lm, PROMPTS, threes, objective, FEW, seed=1, progress=told.append)
    assert told == rounds and [r.number for r in rounds] == list(range(8))
    assert rounds[0].kl == pytest.approx(0, abs=1e-5) and rounds[-1].kl > 0.1
    assert rounds[-1].reward > rounds[0].reward + 0.3
    assert not torch.equal(lm.state_dict()["embedding.weight"], before)


def test_preferences_are_learned() -> None:
    lm = model()
    pairs = [Pair([1, 2], [3, 3], [4, 4]), Pair([5], [3, 4], [4, 5])] * 4
    losses = prefer(lm, pairs, DPO(), Plan(epochs=10, batch=4, lr=3e-3))
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5) and losses[-1] < 0.5


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (lambda prompts, texts: [0.0], "1 numbers for 2 texts"),
        (lambda prompts, texts: [0.0, math.nan], "reward of text 1 is nan"),
        (lambda prompts, texts: 1 / 0, "The reward failed"),
        (lambda prompts, texts: ["much", "little"], "The reward failed"),
    ],
)
def test_rewards_that_are_none_are_refused(reward, words: str) -> None:
    with pytest.raises(PacelineError, match=words):
        rewards_of(reward, [[1], [2]], [[3], [4]])


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(PacelineError, match="no prompt"):
        improve(model(), [], threes, APA(), FEW)
    with pytest.raises(PacelineError, match="prompt is empty"):
        improve(model(), [[]], threes, APA(), FEW)
    with pytest.raises(PacelineError, match="no preference"):
        prefer(model(), [], DPO(), FEW)
    with pytest.raises(PacelineError, match="rounds of at least 1"):
        Plan(rounds=0)
    with pytest.raises(PacelineError, match="strength must be above 0"):
        APA(0.0)
