"""i-Code Studio's composition: does a graph of models that were not trained for it answer spoken questions on a folder?

A seed writes notes on twelve people into a folder, four facts each, no fact twice, and asks four questions. A graph of
four components answers: eSpeak NG says the question, PocketSphinx hears it, BM25 finds the best of the notes, and
SmolLM2 reads it and answers. Rivals are the same graph with typed text in place of speech, and the graph with a part
left out: no search (the model is asked without a note, by a prompt made for that), no reader (the note that was found
is the answer). In the sham one wire ends elsewhere: the note is the one found for another question. The score is F1.

The recogniser has a grammar of the four kinds of question and the twelve names, as applications of this kind have; with
its general language model it heard none of 15 such questions rightly. Where eSpeak NG or PocketSphinx is not installed,
typed text stands in for speech, and the limits say so.

Setting and thresholds are from pilots. With two notes in the prompt SmolLM2 often answered from the wrong one (seeds
1000 and 1001: F1 0.25), so one is given. On seeds 1002 to 1006, where facts could still be shared, the graph had 0.95,
typed text the same, the graph without reader 0.11, without search 0, the sham 0.35. A fact is in one note alone since
then, so that the sham cannot be right by chance: on seeds 1007 to 1010 the graph had 0.75 (of 16 questions two were
misheard, two more misread), typed text 0.88, without reader 0.10, without search 0.06, the sham 0. The margins leave
room for that: 0.4 of the gains of about 0.7, and 0.25 for what mishearing costs, which was 0.06 over all nine seeds.

Known: a whole note has 17 words and the answer one, so without a reader F1 is 0.11 at most, and the bar on it asks no
more than that the graph has over half; the meter is the same in every cell, so the sham alone tells that it acts.
"""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
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
from paceline.prompt._components import ask, join, retrieve
from paceline.prompt._contract import Counted, Written
from paceline.prompt._graph import Component, Wire
from paceline.prompt._kinds import Kind
from paceline.prompt._senses import listen, speak
from paceline.prompt.studio import Studio
from paceline.race.contestant import Event, Job, Outcome, Report
from paceline.race.prompting import f1

CLAIM = (
    "A graph of speech synthesis, recognition, search and SmolLM2, none of them trained for it, answers spoken "
    "questions about a folder of notes with an F1 more than 0.4 above the graph without search and above the graph "
    "without a reader, and less than 0.25 below the graph that is given the questions as text."
)
METHOD, TYPED, UNREAD, UNSEARCHED = "studio", "typed text", "without a reader", "without search"
SHAM = "studio, notes found for another question"
NAMES = (
    "martha", "oscar", "henry", "nina", "victor", "rosa", "simon", "clara", "jacob", "helen", "peter", "laura",
)  # fmt: skip
FACTS = (
    ("where does {} live", "lives in {}",
     "Lisbon Denver Oslo Kyoto Cairo Dublin Lima Prague Boston Madrid Delhi Vienna"),
    ("what instrument does {} play", "plays the {}",
     "harp flute drum cello banjo trumpet piano violin guitar tuba oboe clarinet"),
    ("what animal does {} keep", "keeps a {}",
     "parrot goat turtle pony rabbit ferret hamster canary duck pig sheep cow"),
    ("what fruit does {} grow", "grows one kind of fruit, {}",
     "plums figs cherries melons lemons pears grapes peaches dates mangoes limes kiwis"),
)  # fmt: skip
"""The question, the sentence in the note, and a value for each person."""
SHOWN = "Ivan lives in Rome. Ivan plays the organ. Ivan keeps a dog. Ivan grows one kind of fruit, apples."
READER = (
    f"Notes:\n{SHOWN}\nQuestion: what instrument does ivan play?\nAnswer: organ\n\n"
    f"Notes:\n{SHOWN}\nQuestion: where does ivan live?\nAnswer: Rome\n\n"
    "Notes:\n{passages}\nQuestion: {question}?\nAnswer:"
)
BARE = (
    "Question: what instrument does ivan play?\nAnswer: organ\n\nQuestion: where does ivan live?\nAnswer: Rome\n\n"
    "Question: {question}?\nAnswer:"
)
VOICE, SPEED = "en-us+f3", 130


@dataclass(frozen=True)
class Item:
    """Notes, and questions with their answers and the people they are about."""

    notes: dict[str, str]
    asked: list[tuple[str, str, str]]


class People(Untrained):
    """Questions about notes on people.

    Args:
        model: that reads; see `lm.pretrained`, or `TINY`.
        people: how many there are notes on.
        items: how many questions a seed asks.
    """

    name = "people"
    title = "Spoken questions about notes"
    metric = "F1"
    better = "higher"
    floor = 0.0
    ceiling = 1.0
    vocab_size = 0
    length = 1

    def __init__(self, model: str, people: int, items: int) -> None:
        self.model, self.people, self.items = model, people, items

    def drawn(self, seed: int) -> Item:
        """The notes and questions of a seed."""
        draw = random.Random(derive(seed, "people"))
        names = draw.sample(NAMES, self.people)
        columns = [draw.sample(values.split(), self.people) for *_, values in FACTS]
        facts = {name: list(mine) for name, mine in zip(names, zip(*columns, strict=True), strict=True)}
        notes = {
            name: " ".join(
                f"{name.title()} {form.format(value)}." for (_, form, _), value in zip(FACTS, mine, strict=True)
            )
            for name, mine in facts.items()
        }
        people = draw.sample(names, self.items)
        kinds = [draw.randrange(len(FACTS)) for _ in people]
        asked = [(FACTS[k][0].format(name), facts[name][k], name) for name, k in zip(people, kinds, strict=True)]
        return Item(notes, asked)

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Answer {self.items} questions about notes on {self.people} people, {'spoken' if speaks() else 'typed'}."
        )


def speaks() -> bool:
    """Whether there is speech on this machine."""
    return shutil.which("espeak-ng") is not None and find_spec("pocketsphinx") is not None


def grammar() -> str:
    """What may be said."""
    who = " | ".join(NAMES)
    return f"#JSGF V1.0; grammar q; <who> = {who}; public <q> = {' | '.join(q.format('<who>') for q, *_ in FACTS)};"


def graph(notes: Path, how: str) -> Studio:
    """What answers `question`; in the sham the notes are those for `other`."""
    parts: dict[str, Component] = {}
    wires: list[Wire] = []
    question = "question"
    if speaks() and how != TYPED:
        parts |= {"speaker": speak(VOICE, SPEED), "listener": listen(grammar())}
        wires += [("question", "speaker.text"), ("speaker.audio", "listener.audio")]
        question = "listener.text"
    inputs = {"question": Kind.TEXT}
    if how == UNSEARCHED:
        parts |= {"reader": ask(BARE, tokens=8)}
        return Studio(parts, [*wires, (question, "reader.question")], inputs, ["reader.text"])
    if how == UNREAD:
        parts |= {"finder": retrieve(notes, k=1), "joined": join()}
        wires += [(question, "finder.query"), ("finder.passages", "joined.texts")]
        return Studio(parts, wires, inputs, ["joined.text"])
    parts |= {"finder": retrieve(notes, k=1), "reader": ask(READER, tokens=8, many=("passages",))}
    query = "other" if how == SHAM else question
    wires += [(query, "finder.query"), ("finder.passages", "reader.passages"), (question, "reader.question")]
    inputs |= {"other": Kind.TEXT} if how == SHAM else {}
    return Studio(parts, wires, inputs, ["reader.text"])


opened_once = cache(open_tiny_or)


def measure(job: Job, how: str, report: Report) -> Outcome:
    """Ask a seed's questions."""
    task = job.event.task
    assert isinstance(task, People)
    item, folder = task.drawn(job.seed), job.folder / "notes"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in item.notes.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    studio = graph(folder, how)
    counted = Counted(OpenedText(opened_once(task.model)))
    items, heard, found, given = [], [], [], []
    for number, (question, answer, name) in enumerate(item.asked):
        other = item.asked[(number + 1) % len(item.asked)][0]
        inputs = {"question": question, "other": other}
        said = studio.run({name: inputs[name] for name in studio.graph.inputs}, counted)
        items.append(f1(said.text, (answer,)))
        passages = studio.values.get("finder.passages", ())
        heard.append(float(studio.values.get("listener.text", question) == question))
        found.append(float(item.notes[name] in passages))
        given.append(len(passages) / len(item.notes))
        report(number + 1, len(item.asked), items[-1])
    meters = {"heard": fmean(heard), "found": fmean(found), "given": fmean(given)}
    return Outcome(items, [], Ledger(counted.tokens, 0.0, 0.0, counted.calls), meters)


def design(budget: Budget, corpora: Path) -> Design:
    """Twelve seeds of four questions."""
    smoke = budget == "smoke"
    names = (METHOD, TYPED, UNREAD, UNSEARCHED, SHAM)
    task = People(TINY if smoke else "smollm2", 4 if smoke else len(NAMES), 2 if smoke else 4)
    typed = "" if speaks() else " Speech was not installed here: typed text stands in for it."
    return Design(
        [Measured(name, measure, name, People) for name in names],
        [Event(task, 0, 0, 1)],
        1 if smoke else 12 if budget == "cpu" else 100,
        [
            Bar(task.name, METHOD, UNSEARCHED, 0.4),
            Bar(task.name, METHOD, UNREAD, 0.4),
            Bar(task.name, METHOD, TYPED, -0.25),
        ],
        [Bar(task.name, METHOD, SHAM, 0.0)],
        "given",
        "Four components on made-up notes, and speech from one synthetic voice under a grammar: the paper's own tasks "
        f"(video, translation, pictures) need models that come in no package.{typed}",
    )


class First:
    """Says the last word of the prompt's first line: a reader that can be followed by hand."""

    def complete(self, prompt: str, tokens: int, stop: Sequence[str] = ()) -> Written:
        """See `TextModel`."""
        return Written(prompt.splitlines()[0].split()[-1].rstrip("."), len(prompt.split()), 1)

    def nats(self, prompt: str, continuations: Sequence[str]) -> tuple[list[float], int]:
        """Never asked."""
        raise NotImplementedError

    def count(self, text: str) -> int:
        """Words."""
        return len(text.split())


def faithful() -> bool:
    """Whether three cases end as worked out by hand: what the graph answers, what a swap moves, what is refused.

    Of two notes one alone holds the name that is asked for, so BM25 finds it, and the reader's word is its last. The
    authors published no graph engine (github.com/microsoft/i-Code holds a web page that calls services one after the
    other), and the paper's figures are of services that cannot be called again, so there is no output to compare with.
    """
    notes = ("Anna lives in Rome.", "Boris plays the harp.")
    template = "{passages}\nQuestion: {question}\nAnswer:"
    wires = [("question", "finder.query"), ("question", "reader.question"), ("finder.passages", "reader.passages")]
    parts = {"finder": retrieve(notes, k=1), "reader": ask(template, many=("passages",))}
    studio = Studio(parts, wires, {"question": Kind.TEXT}, ["reader.text"])
    cases = (("where does anna live", notes[0], "Rome"), ("what does boris play", notes[1], "harp"))
    same = []
    for question, note, answer in cases:
        counted = Counted(First())
        direct = First().complete(template.format(passages=note, question=question), 48)
        same += [studio.run({"question": question}, counted).text == direct.text == answer]
        same += [counted.calls == 1 and counted.tokens == direct.read + direct.made]
        swapped = studio.swapped("reader", ask("{question}\n{passages}", many=("passages",)))
        same += [swapped.run({"question": question}, Counted(First())).text == question.split()[-1]]
        same += [swapped.values["finder.passages"] == studio.values["finder.passages"] == (note,)]
    try:
        Studio(parts, [*wires[:2], ("question", "reader.passages")], {"question": Kind.TEXT}, ["reader.text"])
    except PacelineError as error:
        same += ["question gives Text and reader.passages takes Texts" in str(error)]
    return len(same) == 9 and all(same)
