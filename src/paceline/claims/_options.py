"""Questions with options in every order, in the tokens of a pretrained model.

    Which of these is a fruit?
    - hammer
    - apple
    - river
    - violin
    Answer: the one that is a fruit is                                               asked: " apple"

Every word is one token of SmolLM2, so that the probabilities of the four words, made to sum to one, follow from one
read. `measure` gives bits of the right word, averaged over all 24 orders, which a seed has of each of its questions.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.claims._retrieval import open_tiny_or
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.core.state import LM
from paceline.data._untrained import Untrained
from paceline.race.contestant import Job, Outcome, Report

KINDS = {
    "a fruit": ("apple", "banana", "orange", "lemon", "peach", "grape"),
    "an animal": ("horse", "tiger", "rabbit", "elephant", "monkey", "sheep"),
    "a tool": ("hammer", "knife", "drill", "ladder", "brush", "shovel"),
    "a musical instrument": ("piano", "guitar", "violin", "drum", "flute", "trumpet"),
    "a colour": ("red", "blue", "green", "yellow", "purple", "white"),
    "a country": ("France", "Japan", "Brazil", "Canada", "Egypt", "Spain"),
    "a vehicle": ("car", "truck", "train", "boat", "bicycle", "airplane"),
    "a part of the body": ("hand", "knee", "shoulder", "nose", "finger", "stomach"),
    "a season": ("winter", "summer", "autumn", "spring"),
    "a piece of furniture": ("chair", "table", "desk", "cabinet", "shelf", "bed"),
}
OPTIONS = 4


@dataclass(frozen=True)
class Choice:
    """A question, what leads to its answer, and its options, the right one first."""

    ask: str
    lead: str
    options: tuple[str, ...]


Mark = Callable[[Sequence[int], Sequence[Sequence[int]], Sequence[int]], list[int]]
"""A prompt's tokens from those of what stands before the options, of each option, and of what follows."""


class Options(Untrained):
    """Multiple choice, the options in every order.

    Args:
        model: whose tokens; see `lm.pretrained`, or `_pretrained.TINY`.
        items: questions a seed draws.
    """

    name = "options"
    title = "Options in every order"
    metric = "bits of the right option"
    better = "lower"
    floor = math.log2(OPTIONS)
    ceiling = 0.0
    vocab_size = 0
    length = 40

    def __init__(self, model: str, items: int) -> None:
        self.model, self.items = model, items

    def drawn(self, seed: int) -> list[Choice]:
        """The questions of a seed."""
        draw = random.Random(derive(seed, "options"))
        found = []
        for kind in draw.sample(sorted(KINDS), self.items):
            others = draw.sample(sorted(set(KINDS) - {kind}), OPTIONS - 1)
            words = tuple(draw.choice(KINDS[one]) for one in (kind, *others))
            found.append(Choice(f"Which of these is {kind}?\n", f"Answer: the one that is {kind} is", words))
        return found

    def describe(self) -> str:
        """See `Task.describe`."""
        words = sum(map(len, KINDS.values()))
        return (
            f"Choose the right one of {OPTIONS} words in all orders, {self.items} questions a seed, made of {words} "
            f"words of {len(KINDS)} kinds, with {self.model}."
        )


@torch.no_grad()
def measure(job: Job, prepare: Callable[[LM], LM], mark: Mark, report: Report) -> Outcome:
    """Ask every question of the seed in every order.

    Args:
        job: on a task of `Options`.
        prepare: the model, reading prompts in its own way.
        mark: how a prompt is put together for it.
        report: hears of progress.

    Returns:
        Bits of each question's right option. Meters: `right`, the share of questions and orders in which it was the
        most likely; `worst` and `best`, its log2 probability in a question's worst and best order; `agreement`, how
        much the probabilities of two orders have in common (the sum of the smaller ones), in the worst pair; all
        averaged over the questions.
    """
    task = job.event.task
    assert isinstance(task, Options)
    opened = open_tiny_or(task.model)
    encode, lm = opened.words.encode, prepare(opened.lm)
    began, read, held = time.monotonic(), 0, 0
    items: list[float] = []
    meters: dict[str, list[float]] = {"right": [], "worst": [], "best": [], "agreement": []}
    for number, choice in enumerate(task.drawn(job.seed)):
        words = torch.tensor([encode(f" {word}")[-1] for word in choice.options])
        lines = [encode(f"- {word}\n") for word in choice.options]
        found = []
        for order in permutations(range(OPTIONS)):
            ids = mark(encode(choice.ask), [lines[i] for i in order], encode(choice.lead))
            logits, state = lm(torch.tensor([ids]), None)
            found.append(logits[0, -1, words].double().softmax(0))
            read, held = read + len(ids), max(held, state.nbytes)
        chances = torch.stack(found)
        bits = -chances[:, 0].log2()
        items.append(float(bits.mean()))
        meters["right"].append(float((chances.argmax(1) == 0).double().mean()))
        meters["worst"].append(-float(bits.max()))
        meters["best"].append(-float(bits.min()))
        meters["agreement"].append(agreement(chances))
        report(number + 1, task.items, items[-1])
    calls = task.items * math.factorial(OPTIONS)
    bill = Ledger(read, 0.0, time.monotonic() - began, calls, 0, held)
    return Outcome(items, [], bill, {name: fmean(values) for name, values in meters.items()})


def agreement(chances: Float[Tensor, "orders options"]) -> float:
    """Of two distributions, the sum of the smaller probabilities, in the worst pair: 1 where all are the same."""
    return min(float(torch.minimum(a, b).sum()) for a, b in combinations(chances, 2))
