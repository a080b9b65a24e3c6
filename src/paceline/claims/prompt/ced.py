"""CED's choice of demonstrations: does the one that a tuned SmolLM2 prefers help SmolLM2 more than a neighbour does?

A seed writes twelve demonstrations, three of each of four tasks that turn a sentence into a text (a headline, a record,
a question, a reply), and asks four questions, one a task. All are about the same six people, things, places and days,
so a question shares words with demonstrations of other tasks as often as with those of its own: what tells a task is
how its sentences are built. Each way to choose picks one demonstration from the question alone, SmolLM2 reads it and
the question, and the score is what the right answer then costs, in bits per byte. Rivals are a random choice, BM25, the
nearest neighbour by MiniLM, and no demonstration. In the sham the adapters are shuffled among the demonstrations.

Settings and thresholds are from pilots. Six steps at a rate of 5e-3, four demonstrations a task, overfitted (seeds 1000
and 1001): three quarters of the adapters made questions dearer, and 5 of 8 choices were of the question's task. Four at
1e-3 on the same seeds, and two at 3e-3 on the first, always chose its task, where MiniLM did in 10 of 16 cases. With
two at 2e-3, on seeds 1003 to 1010, an answer cost 0.31 bits per byte after CED's choice, 0.67 after MiniLM's, 0.72
after BM25's, 1.09 after the sham's, 1.27 after a random one (3 of 32 were of the question's task, where 8 would be
usual) and 1.46 after none; CED always chose the question's task, MiniLM in 21 of 32 cases. The bars ask for less than
half of what CED had over chance, and for no loss against MiniLM beyond 0.05.
"""

import math
import random
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from paceline.adapt._chosen import fill
from paceline.adapt._contract import trainable
from paceline.adapt.lora import NAME, OUTSIDE, LoRA
from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._measured import Measured
from paceline.claims._pretrained import TINY, load
from paceline.claims._retrieval import open_tiny_or
from paceline.claims._search import once
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.core.tolerances import close
from paceline.data._untrained import Untrained
from paceline.lm.adapted import Foreign
from paceline.lm.config import Config, build
from paceline.lm.open import Bytes
from paceline.lm.text_model import OpenedText
from paceline.prompt._bank import START
from paceline.prompt.ced import CED, Drawn, Nearest, Scorer, scorer
from paceline.race.contestant import Event, Job, Outcome, Report
from paceline.retrieve.dense import Dense, Trigrams

CLAIM = (
    "Of twelve demonstrations of four mixed tasks, the one of the lowest cross-entropy difference, by adapters that "
    "SmolLM2 learned on each, makes SmolLM2's right answers cheaper than a random one does by more than 0.4 bits per "
    "byte, and leaves them less than 0.05 dearer than the nearest neighbour by MiniLM."
)
METHOD, NEAR, WORDS, CHANCE, BARE = "ced", "nearest, minilm", "nearest, bm25", "random", "no demonstration"
SHAM = "ced, adapters shuffled"
PEOPLE = ("Martha", "Oscar", "Henry", "Nina", "Victor", "Rosa")
PLACES = ("Lisbon", "Denver", "Oslo", "Kyoto", "Cairo", "Dublin")
THINGS = ("harp", "drum", "parrot", "lamp", "kite", "clock")
DAYS = ("Monday", "Tuesday", "Thursday", "Friday", "Saturday", "Sunday")
TASKS = {
    "headline": ("{who} took a {thing} to {place} on {day}.", "{WHO} BRINGS {THING} TO {PLACE}"),
    "record": ("{day}: {thing} for {who}, sent to {place}.", "name={who}; item={thing}; city={place}; day={day}"),
    "question": ("It was on {day} that {who} found the {thing} in {place}.", "Who found the {thing} in {place}?"),
    "reply": (
        "Dear {who}, will you bring the {thing} to {place} by {day}?",
        "Yes, I will bring the {thing} to {place}. Yours, {who}",
    ),
}
"""What is asked, and the right answer."""
SHOWN = 3
"""Demonstrations of each task."""
ASKED = 1
"""Questions of each task."""
STEPS, RATE, RANK = 2, 2e-3, 2


@dataclass(frozen=True)
class Item:
    """A sentence with what its task makes of it."""

    question: str
    answer: str
    task: str


class Mixed(Untrained):
    """Four tasks about the same people, things, places and days.

    Args:
        model: that answers, and whose copy is tuned to choose; see `lm.pretrained`, or `TINY`.
    """

    name = "mixed"
    title = "One demonstration of four mixed tasks"
    metric = "bits per byte of the answer"
    better = "lower"
    floor = None
    ceiling = 0.0
    vocab_size = 0
    length = 1
    items = ASKED * len(TASKS)

    def __init__(self, model: str) -> None:
        self.model = model

    def drawn(self, seed: int) -> tuple[list[Item], list[Item]]:
        """The demonstrations and the questions of a seed."""
        draw = random.Random(derive(seed, "mixed"))
        shown = [_item(task, draw) for task in TASKS for _ in range(SHOWN)]
        draw.shuffle(shown)
        return shown, [_item(task, draw) for task in TASKS for _ in range(ASKED)]

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Answer {self.items} questions of {len(TASKS)} tasks after one of {SHOWN * len(TASKS)} demonstrations "
            "that mix them."
        )


def _item(task: str, draw: random.Random) -> Item:
    lists = {"who": PEOPLE, "thing": THINGS, "place": PLACES, "day": DAYS}
    words = {name: draw.choice(values) for name, values in lists.items()}
    words |= {name.upper(): value.upper() for name, value in words.items()}
    asked, answer = TASKS[task]
    return Item(asked.format_map(words), answer.format_map(words), task)


@cache
def opened_once(model: str) -> tuple[Scorer, OpenedText]:
    """The model that is tuned, and the same as it answers."""
    text = OpenedText(open_tiny_or(model))
    if model != TINY:
        return scorer(model), text
    inner = load(TINY)
    return Scorer(TINY, Foreign(inner).eval(), inner, Bytes()), text


def searched(job: Job) -> dict[str, Any]:
    """What every contestant has in a seed, from one bank of adapters."""
    task = job.event.task
    assert isinstance(task, Mixed)
    shown, asked = task.drawn(job.seed)
    pairs = [(item.question, item.answer) for item in shown]
    questions = [item.question for item in asked]
    small, text = opened_once(task.model)
    ced = CED(pairs, small, steps=STEPS, rate=RATE, rank=RANK, seed=job.seed)
    chosen = {METHOD: [row[0] for row in ced.rank_each(questions)]}
    meters, ced.sham = ced.meters(), True
    chosen[SHAM] = [row[0] for row in ced.rank_each(questions)]
    encoder = Dense(Trigrams()) if task.model == TINY else Dense()
    for name, rival in ((NEAR, Nearest(pairs, encoder)), (WORDS, Nearest(pairs)), (CHANCE, Drawn(pairs, job.seed))):
        chosen[name] = [rival.rank(question)[0] for question in questions]
    chosen[BARE] = [-1] * len(asked)

    @cache
    def bits(number: int, row: int) -> float:
        prompt = (ced.template.shown(*pairs[number]) if number >= 0 else "") + ced.template.asked(questions[row])
        return text.nats(prompt, [asked[row].answer + "\n"])[0][0] / math.log(2) / len(asked[row].answer.encode())

    found = {}
    for name, numbers in chosen.items():
        same = [float(number >= 0 and shown[number].task == asked[row].task) for row, number in enumerate(numbers)]
        found[name] = {
            "items": [bits(number, row) for row, number in enumerate(numbers)],
            "meters": {"same_task": fmean(same), **({"gain": meters["gain"]} if name in (METHOD, SHAM) else {})},
            "tokens": meters["tokens_read"] if name in (METHOD, SHAM) else 0,
        }
    return found


def measure(job: Job, how: str, report: Report) -> Outcome:
    """One contestant's share of a seed, which the first of its cells carries out for all."""
    place = job.folder.parents[3] / "shared" / f"ced-{job.seed}.json"
    found = once(place, partial(searched, job))[how]
    items = found["items"]
    report(len(items), len(items), items[-1])
    return Outcome(items, [], Ledger(int(found["tokens"]), 0.0, 0.0, len(items)), found["meters"])


def design(budget: Budget, corpora: Path) -> Design:
    """Twelve seeds of four questions."""
    smoke = budget == "smoke"
    task = Mixed(TINY if smoke else "smollm2")
    return Design(
        [Measured(name, measure, name, Mixed) for name in (METHOD, NEAR, WORDS, CHANCE, BARE, SHAM)],
        [Event(task, 0, 0, 1)],
        1 if smoke else 12 if budget == "cpu" else 100,
        [Bar(task.name, METHOD, CHANCE, 0.4), Bar(task.name, METHOD, NEAR, -0.05)],
        [Bar(task.name, METHOD, SHAM, 0.0)],
        "gain",
        "Four made-up tasks, each with sentences of one build of its own, which is what tells them apart, and one "
        "small model that chooses and answers: the paper's eight benchmarks and its larger models are not asked.",
    )


def faithful() -> bool:
    """Whether a question's difference is what two models of PEFT's kind give, one of them tuned by hand.

    The authors publish scripts and settings (github.com/microsoft/LMOps, ced_icl), but neither the readers of data nor
    the weights that they score with, so there is no output to compare with.
    """
    pairs, question = (("ab ab", "ba"), ("12 12", "21")), "34 34"
    steps, rate, rank = 3, 1e-2, 2
    small = _tiny()
    ced = CED(pairs, small, steps=steps, rate=rate, rank=rank)
    found, bank = ced.differences([question])[0], ced.prepare()
    begun, hand = bank.begun(), []
    for asked, answer in pairs:
        tuned = _tiny()
        LoRA(rank, 4.0 * rank).apply(tuned.inner)
        own = {OUTSIDE + name.replace(f".{NAME}.", "."): p for name, p in trainable(tuned.inner).items()}
        fill(own, begun, "")
        optimizer = torch.optim.Adam(own.values(), lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            _cost(tuned, f"{asked}\n{answer}\n\n").backward()
            optimizer.step()
        hand.append((_cost(tuned, f"{question}\n") - _cost(_tiny(), f"{question}\n")).detach())
    return close(found, torch.stack(hand), torch.float32) and ced.rank(question)[0] == int(torch.stack(hand).argmin())


def _tiny() -> Scorer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(Config(256, 16, 24, ("attention(heads=2)",) * 2, "text")).eval()
    return Scorer("tiny", model, model, Bytes())


def _cost(small: Scorer, text: str) -> Tensor:
    """Nats per byte of a text, read alone."""
    ids = torch.tensor(list((START + text).encode()))
    return functional.cross_entropy(small.model.logits(ids[None, :-1])[0], ids[1:])
