"""Ways to align one given model to a reward, side by side: what they earn, and how far they stray for it.

    score = (reward - that of the model as it was) / its standard deviation - price x divergence,   on held-out prompts

with the divergence in nats a text: a method that gains by straying further pays for it. Rewards and divergences
themselves are meters. All that train see equally many texts: those that learn from preferences are given pairs of the
first model's texts, ordered by the reward.
"""

import copy
import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paceline.align._contract import Choice, Online, Pairwise
from paceline.align._rollout import Reward, batch, log_probabilities, rewards_of, write, writer
from paceline.align._trainer import Pair, Plan, Round, improve, prefer
from paceline.core.discovery import find, part
from paceline.core.errors import PacelineError
from paceline.core.files import sha256
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.core.spec import check, parse
from paceline.lm.adapted import ready
from paceline.lm.decoder import Decoder, count_parameters
from paceline.lm.open import Words, open_lm
from paceline.race.contestant import Contestant, Event, Job, Outcome, Report
from paceline.race.prompts import Texts

BASE = "base"
"""The model as it was."""
PRICE = 0.1
"""Of a nat, in standard deviations of the reward."""
LONGEST = 512
"""Tokens of a prompt that are read: its last ones."""
DRAWN = 32
"""Texts for a held-out prompt, of which the score is the mean."""


def objective(text: str) -> Online | Pairwise | Choice:
    """The method that `text` names, such as `ppo(price=0.1)`.

    Raises:
        PacelineError: no such method or argument, or a setting out of its range.
    """
    spec = parse(text)
    kind: Any = part("align", find(spec.name, "align")[1])
    check(spec, kind)
    made: Online | Pairwise | Choice = kind(**spec.arguments)
    return made


def user_function(place: str) -> Callable[[list[str], list[str]], Any]:
    """The function named `FILE.py:NAME`: the user's own code, run as such.

    Raises:
        PacelineError: there is no such file or function, or the file fails.
    """
    file, _, name = place.rpartition(":")
    if not file or not os.path.isfile(file):
        raise PacelineError(f"--reward {place}: give FILE.py:FUNCTION, of a file that is there.")
    spec = importlib.util.spec_from_file_location("reward", file)
    if spec is None or spec.loader is None:
        raise PacelineError(f"--reward {place}: {file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises
        raise PacelineError(f"--reward {file} failed ({type(error).__name__}: {error}): mend it.") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise PacelineError(f"--reward {place}: {file} has no function {name}.")
    return found  # type: ignore[no-any-return]


def judged(function: Callable[[list[str], list[str]], Any], words: Words) -> Reward:
    """A function of texts as one of tokens."""

    def reward(prompts: list[list[int]], texts: list[list[int]]) -> Any:
        return function([words.decode(ids) for ids in prompts], [words.decode(ids) for ids in texts])

    return reward


class Rewarded(Texts):
    """Texts after prompts, some of which a seed holds out, by a reward.

    Args:
        prompts: at least two.
        model: that is aligned: a folder, or a known model's name.
        reward: `FILE.py:FUNCTION`.
        tokens: of a text, at most.

    Raises:
        PacelineError: too few prompts.
    """

    name = "reward"
    title = "Reward, less what straying costs"
    metric = "standard deviations, divergence paid"
    better = "higher"
    floor = None

    def __init__(self, prompts: Sequence[str], model: str, reward: str, tokens: int) -> None:
        super().__init__(prompts, model, tokens, items=max(1, len(prompts) // 4))
        if len(self.texts) < 2:
            raise PacelineError("Some prompts are held out, so at least 2 are needed: add some to --prompts.")
        self.reward = reward

    def describe(self) -> str:
        """See `Task.describe`."""
        file, _, name = self.reward.rpartition(":")
        return (
            f"Align {self.model} to {name} (digest {sha256(Path(file))[:8]}) by texts of up to {self.length} tokens; "
            f"{self.drawing} are held out, drawn by the seed, and {PRICE} is paid for a nat of divergence."
        )

    def asked(self, seed: int) -> list[str]:
        """The prompts that a seed trains on."""
        held = set(self.drawn(seed))
        return [text for text in self.texts if text not in held] or list(self.texts)


class Aligned(Contestant):
    """The model after a method aligned it.

    Args:
        name: the method, as `objective` reads it, or `base`: nothing is done.
        plan: how much is written and learned; the rate is searched.
        keeps: whether a cell that is told where saves its model there.
    """

    def __init__(self, name: str, plan: Plan, keeps: bool = False) -> None:
        self.name, self.plan, self.keeps = name, plan, keeps
        trains = name != BASE and not isinstance(objective(name), Choice)
        self.settings = (1e-4, 3e-4, 1e-3) if trains else (0.0,)

    def identity(self) -> list[object]:
        """See `Contestant.identity`."""
        return [*self.settings, hashlib.sha256(repr(self.plan).encode()).hexdigest()[:8]]

    def check(self, event: Event) -> None:
        """See `Contestant.check`."""
        if not isinstance(event.task, Rewarded):
            raise PacelineError(f"{self.name} aligns: it races on rewarded texts, not on {event.task.name}.")

    def run(self, job: Job, report: Report) -> Outcome:
        """See `Contestant.run`."""
        task = job.event.task
        assert isinstance(task, Rewarded)
        given, opened = ready(task.model), open_lm(task.model)
        reward = judged(user_function(task.reward), opened.words)
        asked, held = (
            [opened.words.encode(text)[-LONGEST:] for text in texts]
            for texts in (task.asked(job.seed), task.drawn(job.seed))
        )
        base = copy.deepcopy(given.model).requires_grad_(False)
        how = None if self.name == BASE else objective(self.name)
        plan = Plan(**{**vars(self.plan), "tokens": task.length, "lr": job.setting or self.plan.lr})
        curve = _train(given.model, asked, reward, how, plan, job, opened.ends, report)
        items, meters = measured(given.model, base, how, held, reward, plan.tokens, job.seed, opened.ends)
        if self.keeps and job.model_folder is not None:
            given.save(job.model_folder)
        written = plan.rounds * plan.texts if curve else 0
        bill = Ledger(tokens=written * plan.tokens, parameters=count_parameters(given.model))
        return Outcome(items, curve, bill, meters)


def _train(
    model: Decoder, asked: list[list[int]], reward: Reward, how: object, plan: Plan, job: Job, ends: Sequence[int],
    report: Report,
) -> list[tuple[int, float]]:  # fmt: skip
    """Align in place; the reward by tokens written, where it is told on the way."""
    if isinstance(how, Online):
        curve: list[tuple[int, float]] = []

        def hear(told: Round) -> None:
            curve.append(((told.number + 1) * plan.texts * plan.tokens, told.reward))
            report(told.number + 1, plan.rounds, told.reward)

        improve(model, asked, reward, how, plan, derive(job.seed, "align"), ends, hear)
        return curve
    if isinstance(how, Pairwise):
        pairs = preferences(model, asked, reward, plan, job.seed, ends)
        losses = prefer(model, pairs, how, plan, derive(job.seed, "align"), report)
        return [((i + 1) * plan.batch * plan.tokens, loss) for i, loss in enumerate(losses)]
    return []


def preferences(
    model: Decoder, asked: list[list[int]], reward: Reward, plan: Plan, seed: int, ends: Sequence[int]
) -> list[Pair]:
    """As many texts as the rounds of a plan have, in pairs for one prompt each, ordered by the reward.

    Raises:
        PacelineError: the reward fails, or finds both texts of every pair equal.
    """
    draws = torch.Generator().manual_seed(derive(seed, "pairs"))
    chosen = torch.randint(len(asked), (max(1, plan.rounds * plan.texts // 2),), generator=draws).tolist()
    prompts = [asked[i] for i in chosen for _ in range(2)]
    texts = write(writer(model), prompts, plan.tokens, derive(seed, "written"), ends)
    scores = rewards_of(reward, prompts, texts).view(-1, 2)
    found = []
    for i, (one, other) in enumerate(scores.tolist()):
        if one != other:
            best = 2 * i + int(other > one)
            found.append(Pair(prompts[best], texts[best], texts[4 * i + 1 - best]))
    if not found:
        raise PacelineError("The reward finds both texts of every pair equal: nothing can be preferred.")
    return found


@torch.no_grad()
def measured(
    model: Decoder, base: Decoder, how: object, held: list[list[int]], reward: Reward, tokens: int, seed: int,
    ends: Sequence[int],
) -> tuple[list[float], dict[str, float]]:  # fmt: skip
    """The score of each held-out prompt, and meters: `reward` and `usual`, the base's; `kl`, in nats a text."""
    n = how.n if isinstance(how, Choice) else 1
    asked = [prompt for prompt in held for _ in range(DRAWN * n)]
    texts = write(writer(model), asked, tokens, derive(seed, "held out"), ends)
    found = rewards_of(reward, asked, texts)
    plain_asked = [prompt for prompt in held for _ in range(DRAWN)]
    plain = rewards_of(reward, plain_asked, write(writer(base), plain_asked, tokens, derive(seed, "as it was"), ends))
    if isinstance(how, Choice):
        rows = found.view(-1, n)
        found = rows.gather(1, how.choose(rows)[:, None])[:, 0]
        divergence = torch.full_like(found, float(getattr(how, "divergence", 0.0)))
    else:
        divergence = _divergence(model, base, asked, texts)
    gain = (found - plain.mean()) / plain.std(correction=0).clamp_min(1e-6)
    score = (gain - PRICE * divergence).view(len(held), DRAWN).mean(1)
    meters = {"reward": found.mean().item(), "usual": plain.mean().item(), "kl": divergence.mean().item()}
    return score.tolist(), meters


def _divergence(model: Decoder, base: Decoder, prompts: list[list[int]], texts: list[list[int]]) -> Tensor:
    """log pi(text) - log base(text) of each."""
    found = []
    for start in range(0, len(texts), DRAWN):
        ids, mask = batch(prompts[start : start + DRAWN], texts[start : start + DRAWN])
        said, usual = log_probabilities(model, ids)[0], log_probabilities(base, ids)[0]
        found.append(((said - usual) * mask).sum(1))
    return torch.cat(found)
