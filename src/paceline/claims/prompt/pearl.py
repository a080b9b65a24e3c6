"""PEARL's execution of plans: does SmolLM2 answer in steps what it cannot answer at once?

A seed writes a story of 64 sentences, about 470 tokens: twelve people have a thing and a city each, told in two
sentences that may lie far apart, and 40 sentences tell nothing. It asks where the owners of two things live. The plan
is given: quote the sentence on the thing, tell its owner, quote the sentence on the owner, tell his city. A quotation
is asked for in pieces of the story, by a prompt that begins it, and what is not in the piece word for word counts as
none. Rivals answer by one prompt with the whole story, at once or with thoughts before the answer, after three examples
of the same question on another story. Without quotations, the plan is to tell the owner and then his city from the
whole story. In the sham the city is asked of the other question's owner. The score is F1.

Setting and thresholds are from pilots on seeds from 1000. SmolLM2 could not compare: who of two is older (7 of 16
right, after four examples), whether two live in one city (8 of 16), so no plan compares here. Nor could it say that a
piece holds no answer: after examples of both it said `none` to nearly all, and after others it quoted something of
every piece and then chose wrongly; hence the check. Prompts that begin the quotation found 22 of 24 sentences with
eight people in the story (seeds 1000 to 1005), examples of questions 11 of 16. On the whole, with eight people, PEARL
had 4 of 8 (1020 to 1023), one prompt 2 of 10, a chain of thought 0 of 10; after six examples on people of the same
story, which tell what cities are left, these had 3 and 2 of 10. With twelve people both sentences were found for 8 of
12 questions (1030 to 1035), where one prompt had 2 and a chain of thought 0. Then a sofa and a canoe took the place of
a clock and a boat, which SmolLM2 rather defined than looked up, and PEARL had 4 of 8 (1040 to 1043), the first two
rivals 0 of 10 and the plan without quotations 1 of 10 (1040 to 1044). Gains of 0.3 to 0.5 are expected; 0.1 is asked
for.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._measured import Measured
from paceline.claims._pretrained import TINY
from paceline.claims._retrieval import open_tiny_or
from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.data._untrained import Untrained
from paceline.lm.text_model import OpenedText
from paceline.prompt._contract import Counted, Written
from paceline.prompt.pearl import Action, Pearl, quoted, read_plan
from paceline.race.contestant import Event, Job, Outcome, Report
from paceline.race.prompting import f1

CLAIM = (
    "A plan of four steps that is given, executed by SmolLM2 over a story in pieces, answers questions on two facts of "
    "it with an F1 more than 0.1 above one prompt, above a chain of thought, and above the plan without the steps that "
    "quote."
)
METHOD, ONE, THOUGHTS, SHORT = "pearl", "one prompt", "chain of thought", "pearl without quotations"
SHAM = "pearl, outputs fed to the other question's steps"
NAMES = (
    "Martha", "Oscar", "Henry", "Nina", "Victor", "Rosa", "Simon", "Clara", "Jacob", "Helen", "Peter", "Laura",
)  # fmt: skip
THINGS = (
    "drum", "lamp", "canoe", "kite", "piano", "ladder", "mirror", "bicycle", "sofa", "tent", "wagon", "violin",
)  # fmt: skip
HOMES = (
    "Lisbon", "Denver", "Oslo", "Kyoto", "Cairo", "Dublin", "Geneva", "Prague", "Boston", "Madrid", "Milan", "Vienna",
)  # fmt: skip
WHAT = (
    "The rain", "The wind", "A cold fog", "The church bell", "The market", "The river", "A long train", "The bakery",
    "The narrow street", "The harbour", "The evening sun", "A grey cloud",
)  # fmt: skip
DID = (
    "was quiet that week", "could be heard from far away", "made everyone slow down", "was the talk of the village",
    "seemed different in spring", "had been there for years", "changed nothing at all", "came and went without notice",
    "was described in the local paper", "looked better from the hill",
)  # fmt: skip
PIECE = 96
"""Tokens, about ten sentences."""
QUESTIONS = 2
"""Of a seed: as many as it takes for an output to be fed to the wrong one."""


def _shown(form: str, rows: Sequence[tuple[str, ...]]) -> str:
    return "".join(form.format(*row) for row in rows)


TOLD = (
    ("The sword belongs to Emma.\nIvan lives in Rome.", "owner of the sword", "Emma"),
    ("Dora lives in Paris.\nNobody knew the time.\nEmma lives in Bonn.", "city of Emma", "Bonn"),
    ("Ivan lives in Rome.\nEmma lives in Bonn.\nThe ring belongs to Dora.", "city of Ivan", "Rome"),
    ("The ring belongs to Dora.\nThe cup belongs to Ivan.", "owner of the ring", "Dora"),
    ("The ring belongs to Dora.\nIvan lives in Rome.\nThe cup belongs to Ivan.", "owner of the cup", "Ivan"),
    ("Dora lives in Paris.", "city of Dora", "Paris"),
)


def _sentence(values: Mapping[str, str], text: str) -> str:
    """The sentence that begins with what it is about, if it is in the text word for word."""
    return quoted(values, f"{values['X']} {text}.")


ACTIONS = {
    action.name: action
    for action in (
        Action(
            "EXTRACT", ("CTX", "X"), "Quote the sentence of CTX that begins with X.",
            template='Text: "{CTX}"\n\nThe text says: "{X}',
            gathers=True, after=_sentence,
        ),
        Action(
            "TELL", ("S", "X", "Y"), "Say in a word who or what is X of Y, given the notes S.",
            _shown("Notes:\n{}\nQuestion: what is the {}?\nAnswer: {}\n\n", TOLD)
            + "Notes:\n{S}\nQuestion: what is the {X} of {Y}?\nAnswer:",
        ),
    )
}  # fmt: skip
PLAN = (
    'notes{n} = EXTRACT(CTX, "The {thing}")\nowner{n} = TELL(notes{n}, "owner", "the {thing}")\n',
    'about{n} = EXTRACT(CTX, owner{m})\ncity{n} = TELL(about{n}, "city", owner{m})\n',
)
BRIEF = ('owner{n} = TELL(CTX, "owner", "the {thing}")\n', 'city{n} = TELL(CTX, "city", owner{m})\n')
ASKED = "Where does the owner of the {} live?"


@dataclass(frozen=True)
class Person:
    """A line of the story's facts."""

    name: str
    thing: str
    home: str


OTHER = (
    "Ivan lives in Rome. The fields were empty. The sword belongs to Emma. The cup belongs to Ivan. Dora lives in "
    "Paris. Nobody knew the time. Emma lives in Bonn. The ring belongs to Dora. A bird sang all day."
)
SHOWN = (Person("Emma", "sword", "Bonn"), Person("Ivan", "cup", "Rome"), Person("Dora", "ring", "Paris"))
"""Rivals' examples. On people of the same story they would tell which cities are left."""


@dataclass(frozen=True)
class Item:
    """A story, and those in it that are asked about."""

    text: str
    asked: list[Person]


class Stories(Untrained):
    """Questions that two sentences of a story answer together.

    Args:
        model: that reads; see `lm.pretrained`, or `TINY`.
        people: how many have a thing and a home each.
        filler: sentences without a fact.
    """

    name = "stories"
    title = "Two facts in a story"
    metric = "F1"
    better = "higher"
    floor = 0.0
    ceiling = 1.0
    vocab_size = 0
    length = 1
    items = QUESTIONS

    def __init__(self, model: str, people: int, filler: int) -> None:
        self.model, self.people, self.filler = model, people, filler

    def drawn(self, seed: int) -> Item:
        """The story and questions of a seed."""
        draw = random.Random(derive(seed, "story"))
        columns = [draw.sample(values, self.people) for values in (NAMES, THINGS, HOMES)]
        people = [Person(*facts) for facts in zip(*columns, strict=True)]
        sentences = [f"The {one.thing} belongs to {one.name}." for one in people]
        sentences += [f"{one.name} lives in {one.home}." for one in people]
        sentences += [f"{draw.choice(WHAT)} {draw.choice(DID)}." for _ in range(self.filler)]
        draw.shuffle(sentences)
        return Item(" ".join(sentences), people[:QUESTIONS])

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Answer {self.items} questions, each by two sentences of a story on {self.people} people with "
            f"{self.filler} other sentences."
        )


def plan(how: str, things: Sequence[str]) -> str:
    """The plan for all questions of a seed; in the sham each goes on with the owner of the next one's thing."""
    stages, count = BRIEF if how == SHORT else PLAN, len(things)
    rows = [(n, (n + 1) % count if how == SHAM else n, thing) for n, thing in enumerate(things)]
    return "".join(form.format(n=n, m=m, thing=thing) for form in stages for n, m, thing in rows)


def prompt(how: str, item: Item, thing: str) -> str:
    """A rival's: another story with three questions and their answers, then the story and the question."""
    shots = ""
    for one in SHOWN:
        thought = f"\nThoughts: The {one.thing} belongs to {one.name}. {one.name} lives in {one.home}."
        shots += f"Question: {ASKED.format(one.thing)}{thought * (how == THOUGHTS)}\nAnswer: {one.home}\n\n"
    begun = "Thoughts:" if how == THOUGHTS else "Answer:"
    return f"Text: {OTHER}\n\n{shots}Text: {item.text}\n\nQuestion: {ASKED.format(thing)}\n{begun}"


opened_once = cache(open_tiny_or)


def measure(job: Job, how: str, report: Report) -> Outcome:
    """Ask a seed's questions."""
    task = job.event.task
    assert isinstance(task, Stories)
    item = task.drawn(job.seed)
    counted = Counted(OpenedText(opened_once(task.model)))
    things, homes = [one.thing for one in item.asked], [one.home for one in item.asked]
    meters = {"fed": 0.0}
    if how in (ONE, THOUGHTS):
        said = [counted.complete(prompt(how, item, thing), 40, ("\n\n",)) for thing in things]
        said = [text.rpartition("Answer:")[2].strip().partition("\n")[0] for text in said]
    else:
        pearl = Pearl(plan(how, things), ACTIONS, piece=PIECE, tokens=8, stop=(".", "\n"))
        pearl.run({"question": " ".join(map(ASKED.format, things)), "document": item.text}, counted)
        said = [pearl.values[f"city{n}"] for n in range(len(things))]
        right = [pearl.values.get(f"owner{n}") == one.name for n, one in enumerate(item.asked)]
        meters = {"fed": fmean(map(float, right))}
    items = [f1(text, (home,)) for text, home in zip(said, homes, strict=True)]
    report(len(items), len(items), fmean(items))
    return Outcome(items, [], Ledger(counted.tokens, 0.0, 0.0, counted.calls), meters)


def design(budget: Budget, corpora: Path) -> Design:
    """Sixteen seeds of two questions."""
    smoke = budget == "smoke"
    task = Stories(TINY, 3, 3) if smoke else Stories("smollm2", 12, 40)
    return Design(
        [Measured(name, measure, name, Stories) for name in (METHOD, ONE, THOUGHTS, SHORT, SHAM)],
        [Event(task, 0, 0, 1)],
        1 if smoke else 16 if budget == "cpu" else 100,
        [
            Bar(task.name, METHOD, ONE, 0.1),
            Bar(task.name, METHOD, THOUGHTS, 0.1),
            Bar(task.name, METHOD, SHORT, 0.1),
        ],
        [Bar(task.name, METHOD, SHAM, 0.0)],
        "fed",
        "Plans that are given, actions made for SmolLM2, and made-up stories that fit its window: mining actions and "
        "writing plans, the paper's other stages, need a large model, such as its GPT-4.",
    )


class Scripted:
    """Says the last word of the first line that begins as the prompt's last line, and keeps the prompts."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def complete(self, prompt: str, tokens: int, stop: Sequence[str] = ()) -> Written:
        """See `TextModel`."""
        self.prompts.append(prompt)
        asked = prompt.splitlines()[-1]
        text = next((line.split()[-1] for line in prompt.splitlines()[:-1] if line.startswith(asked)), "none")
        return Written(text, self.count(prompt), 1)

    def nats(self, prompt: str, continuations: Sequence[str]) -> tuple[list[float], int]:
        """Never asked."""
        raise NotImplementedError

    def count(self, text: str) -> int:
        """Words."""
        return len(text.split())


def faithful() -> bool:
    """Whether a plan in the paper's form is read and executed as worked out by hand.

    It has all that the form knows: a new action, numbers, explanations, a text in quotes, an output that a later step
    takes, `CONCAT`, and an output that no step takes. The authors' parser (github.com/SimengSun/pearl) makes the same
    steps of it, and their executor gives as answer what no step takes, in order, as is checked here. Outside this
    repository the 992 plans that GPT-4 wrote for them were read by both parsers: 977 alike, 15 refused by both. What
    GPT-4 said then cannot be asked again, so there is no output to compare with.
    """
    text = (
        "New actions:\n- LAST(CTX, X) : Say the last word of the line on X.\n\n"
        '1. owner = LAST(CTX, "drum") : Find the owner of the drum\n'
        "2. city = LAST(CTX, owner) : Find the city of the owner\n"
        '3. boat = LAST(CTX, "boat") : Find the owner of the boat\n'
        "4. ans = CONCAT(owner, city) : Put both together"
    )
    story = "boat of Nina\ndrum of Henry\nHenry of Lima"
    read = read_plan(text, {"CONCAT": Action("CONCAT", ("S1", "S2", "..."))})
    same = [
        [(step.output, step.action.name, [str(a) for a in step.arguments]) for step in read.steps]
        == [
            ("owner", "LAST", ["CTX", '"drum"']),
            ("city", "LAST", ["CTX", "owner"]),
            ("boat", "LAST", ["CTX", '"boat"']),
            ("ans", "CONCAT", ["owner", "city"]),
        ],
        [step.says for step in read.steps][1] == "Find the city of the owner",
        list(read.new) == ["LAST"] and read.new["LAST"].arguments == ("CTX", "X"),
    ]
    actions = {"LAST": replace(read.new["LAST"], template="{CTX}\n{X}"), "CONCAT": read.steps[-1].action}
    model = Scripted()
    pearl = Pearl(text, actions)
    answer = pearl.run({"question": "Where does the owner of the drum live?", "document": story}, Counted(model))
    same += [model.prompts == [f"{story}\n{asked}" for asked in ("drum", "Henry", "boat")]]
    same += [list(pearl.values.items())[:3] == [("owner", "Henry"), ("city", "Lima"), ("boat", "Nina")]]
    same += [answer.text == "Nina\nHenry\nLima" and answer.complete]
    try:
        read_plan(text.replace("owner =", "keeper ="), actions)
    except PacelineError as error:
        same += ["takes owner, which no step gives" in str(error)]
    return len(same) == 7 and all(same)
