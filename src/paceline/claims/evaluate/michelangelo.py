"""Michelangelo on SmolLM2: is Latent List harder with length and with complexity, where a single needle stays easy?

Asked is the beginning of a list (`a[:2]`, `a[0]`) after one operation in sessions of 64 and 384 tokens, and after one
or six without any irrelevant line; for so small a model by the likeliest of four answers, of which the wrong ones were
right earlier or nearly are. The needle is the value of a name, assigned once among the same irrelevant lines. The sham
reads the session of another list with this one's question and answers: nothing follows from it.

Pilots, on questions from number 1000 on, chose kinds of questions and lengths: after one operation and 64 tokens the
model was right in 69 and 50 % of 16 questions each, at 96 in 38 and 41 %, at 512 in 30 % of 10, the sham at 96 in 13 %
of 16; the needle at 384 was found in 5 of 5. Complexity showed nothing: 46 % of 24 bare questions after one operation
and after six, 41 and 44 % of 32 after one and four in 96 tokens. The bar on it stays, for it is the paper's, with a
margin of equivalence. The list's length was guessed without reading (67 %, the sham too), and the whole list was never
told better than by chance: these are not asked.
"""

import math
import time
from pathlib import Path
from statistics import fmean

import torch

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._measured import Measured
from paceline.claims._pretrained import TINY
from paceline.claims._retrieval import open_tiny_or
from paceline.claims.evaluate._sessions import Sessions
from paceline.core.ledger import Ledger
from paceline.evaluate._answer import log_likelihoods
from paceline.evaluate._contract import Item, Words
from paceline.evaluate.latent_list import LatentList, replay
from paceline.evaluate.mrcr import MRCR
from paceline.race.contestant import Event, Job, Outcome, Report

FIRST = 24
"""Of the seeds. In a first run, on 0 to 23, the one operation left what was asked as it was in 58 of 96 questions, so
that whoever copied the list's first line was right in 60 % after one and in 13 % after six. Now the last operation
changes it; pilots, above, were on such questions too."""
CLAIM = (
    "Choosing among four answers, SmolLM2 tells the beginning of a Python list after one operation in sessions of 64 "
    "tokens better, by more than 0.05 of accuracy, than in sessions of 384; without any irrelevant line better, by "
    "more than 0.05, after one operation than after six; and in 384 tokens it retrieves a single needle better, by "
    "more than 0.2, than it tells the list."
)
SHORT, LONG, SIMPLE, COMPLEX = "short list", "long list", "bare list", "bare complex list"
NEEDLE, SHAM = "long needle", "short, another list"


def run(job: Job, how: str, report: Report) -> Outcome:
    """Ask a seed's questions of one kind; the likeliest option is the answer."""
    task = job.event.task
    assert isinstance(task, Sessions)
    opened = open_tiny_or(task.model)
    items, shares, tokens, calls, began = [], [], 0, 0, time.monotonic()
    for number in range(task.items):
        item = _item(task, opened.words, job.seed * task.items + number, how)
        ranks = torch.tensor(log_likelihoods(opened.lm, opened.words, item))
        items.append(float(item.options[int(ranks.argmax())] == item.answer))
        shares.append(float(ranks.softmax(0)[item.options.index(item.answer)]))
        tokens += len(opened.words.encode(item.prompt))
        calls += 1 + len(item.options)
        report(number + 1, task.items, shares[-1])
    bill = Ledger(tokens, 0.0, time.monotonic() - began, calls, job.event.parameters)
    return Outcome(items, [], bill, {"share": fmean(shares)})


def _item(task: Sessions, words: Words, number: int, how: str) -> Item:
    if how == NEEDLE:
        return task.needle(words, number, task.long)
    if how == SHAM:
        return task.elsewhere(words, number, 1, task.short)
    if how in (SIMPLE, COMPLEX):
        return task.bare(words, number, 1 if how == SIMPLE else task.many)
    return task.question(words, number, 1, task.short if how == SHORT else task.long)


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    smoke = budget == "smoke"
    task = {
        "smoke": Sessions(TINY, 1, 250, 600, 4),
        "cpu": Sessions("smollm2", 4, 64, 384, 6),
        "gpu": Sessions("smollm2", 64, 64, 4_096, 6),
    }[budget]
    return Design(
        contestants=[Measured(name, run, name, Sessions) for name in (SHORT, LONG, SIMPLE, COMPLEX, NEEDLE, SHAM)],
        events=[Event(task, 0, 134_515_008, 1)],
        seeds=range(FIRST, FIRST + (1 if smoke else 24)),
        bars=[
            Bar("sessions", SHORT, LONG, by=0.05),
            Bar("sessions", SIMPLE, COMPLEX, by=0.05, equal=0.15),
            Bar("sessions", NEEDLE, LONG, by=0.2),
        ],
        shams=[Bar("sessions", SHORT, SHAM)],
        meter="share",
        limits="One model of 135 million parameters that chooses among four answers, sessions of up to 384 tokens and "
        "one of the three kinds of task: the paper asks models a thousand times larger over a million tokens.",
    )


def faithful() -> bool:
    """Whether a session by hand, its replay among irrelevant lines and difflib's ratio come out as worked out."""
    session = [">>> a = [5, 2, 8, 2]", ">>> a.append(4)", ">>> a.remove(2)", ">>> a.pop(0)\n5", ">>> a.insert(1, 9)"]
    idle = [
        '>>> print("Do nothing.")\nDo nothing.',
        ">>> a.reverse()\n>>> a.reverse()",
        ">>> b = a.copy()\n>>> b.pop()",
    ]
    mixed = [session[0], idle[0], session[1], idle[1], *session[2:4], idle[2], session[4]]
    lists = LatentList(4, view="a")
    item = Item("", "[8, 9, 2, 4]\n", (), ())
    ratio = MRCR().score("abcdz", Item("", "abcdefg", (), (), {"sign": "x7"}))
    return (
        replay(session) == replay(mixed) == [8, 9, 2, 4]
        and [lists.score(said, item) for said in ("[8,9,2,4]", "[9, 8, 2, 4]", "")] == [1, 0, 0]
        and math.isclose(ratio, 2 * 4 / (5 + 7))
    )
