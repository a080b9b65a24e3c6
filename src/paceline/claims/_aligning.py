"""Byte models that are aligned to a reward that a line of code tells: what the claims on alignment share.

    score = (reward - that of the model as it was) / its standard deviation - price x KL,   on held-out prompts

with the KL divergence of an answer in nats: what alignment is asked for, the same for every contestant. The model of a
seed is trained once and shared by its cells.
"""

import copy
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.align._contract import Online
from paceline.align._rollout import log_probabilities
from paceline.align._trainer import Plan, Round, improve
from paceline.claims._guiding import bill, byte_model, draw, shared
from paceline.claims._measured import trained_once
from paceline.claims._preferences import REWARDS, spread
from paceline.core.seeds import derive
from paceline.data.text import Text
from paceline.lm.decoder import Decoder
from paceline.lm.train import Recipe
from paceline.race.contestant import Job, Outcome, Report

PROMPT, LENGTH = 12, 24
"""Bytes of a prompt and of an answer."""
PRICE = 0.1
"""Of a nat, in standard deviations of the reward."""


class Aligning(Text):
    """Answers to prompts from a corpus that earn a reward.

    Args:
        folder: as in `Text`.
        reward: one of `claims._preferences.REWARDS`.
        rounds: of alignment.
        samples: answers of a round.
        items: held-out prompts of a seed.
    """

    metric = "standard deviations, divergence paid"
    better = "higher"  # type: ignore[assignment]
    floor = None  # type: ignore[assignment]

    def __init__(self, folder: str | Path, reward: str, rounds: int, samples: int, items: int) -> None:
        super().__init__(folder, 128)
        self.reward, self.rounds, self.samples, self.items = reward, rounds, samples, items
        self.name, self.title = reward, reward.replace("_", " ").capitalize()  # type: ignore[misc]

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Answer {self.items} prompts by {LENGTH} bytes for {self.reward}, after {self.rounds} rounds of "
            f"{self.samples} answers (digest {self.corpus.digest[:8]})."
        )

    def prompts(self, seed: int, use: str, count: int) -> list[list[int]]:
        """Of the text that the model was trained on, as what it makes of them is all that counts."""
        draws = torch.Generator().manual_seed(derive(seed, "prompts", use))
        found: list[list[int]] = self.sample(count, draws).ids[:, :PROMPT].tolist()
        return found

    def earned(self, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
        """The reward of answers."""
        told: list[float] = REWARDS[self.reward](torch.tensor(answers)).tolist()
        return told


def aligned(job: Job, objective: Online, rate: float, report: Report) -> Outcome:
    """Align the seed's model and measure it on held-out prompts.

    Args:
        job: on `Aligning`.
        objective: of the contestant.
        rate: its learning rate.
        report: hears of the rounds.

    Returns:
        The score of each held-out prompt. Meters: `kl`, nats an answer; `entropy`, of the first model's, the share that
        is left; `gain`, the reward in standard deviations; `jolt`, minus the largest change of the divergence from one
        round to the next; `moved`, kl / (1 + kl).
    """
    task, event = job.event.task, job.event
    assert isinstance(task, Aligning)
    recipe = Recipe(event.tokens, event.batch, lr=5e-3)
    base = trained_once(shared(job, "base"), lambda: byte_model(job, task, 2, event.parameters, recipe))
    policy = copy.deepcopy(base)
    plan = Plan(task.rounds, task.samples, LENGTH, 2, 16, rate)
    path: list[float] = []

    def hear(told: Round) -> None:
        path.append(told.kl)
        report(told.number + 1, task.rounds, told.reward)

    torch.manual_seed(derive(job.seed, "chance"))
    asked = task.prompts(job.seed, "training", 512)
    improve(policy, asked, task.earned, objective, plan, derive(job.seed, "align"), progress=hear)
    prompts, seed = torch.tensor(task.prompts(job.seed, "held out", task.items)), derive(job.seed, "held out")
    drawn, plain = (draw(model, base, prompts, LENGTH, seed) for model in (policy, base))
    rewards, usual = (REWARDS[task.reward](texts.ids) for texts in (drawn, plain))
    gain = (rewards - usual.mean()) / spread(usual)
    kl = drawn.kl.mean().item()
    entropies = [
        entropy(model, torch.cat((prompts, texts.ids), 1)) for model, texts in ((policy, drawn), (base, plain))
    ]
    meters = {
        "kl": kl, "entropy": entropies[0] / entropies[1], "gain": gain.mean().item(), "moved": kl / (1 + kl),
        "jolt": -max(abs(after - before) for before, after in pairwise(path)),
    }  # fmt: skip
    return Outcome((gain - PRICE * drawn.kl).tolist(), [], bill(job, base), meters)


@torch.no_grad()
def entropy(model: Decoder, ids: Int[Tensor, "b t"]) -> float:
    """Of what the model draws an answer's bytes from, in nats a byte."""
    return log_probabilities(model, ids)[1][:, PROMPT - 1 :].mean().item()
