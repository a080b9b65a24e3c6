"""Pipelines around one given model, side by side, on questions with answers and under one budget. Nothing is trained.

A cell is a seed's draw of questions. The score is F1 between the words of what is said and of the answer, as SQuAD
counts them: small letters, no punctuation, no articles; of several answers the nearest counts. A pipeline whose budget
ends first is scored by what it has said by then; one that fails on a question says nothing. The ledger's calls are
those of the model, its tokens those read and written.
"""

import hashlib
import inspect
import json
import re
import string
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from paceline.core.discovery import find, methods, part
from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.core.spec import check, parse
from paceline.data._untrained import Untrained
from paceline.lm.text_model import text_model
from paceline.prompt._contract import Answer, Budget, Counted, Pipeline
from paceline.race.contestant import Contestant, Event, Job, Outcome, Report


@dataclass(frozen=True)
class Question:
    """Named inputs, and the answers that are right."""

    inputs: Mapping[str, str]
    answers: tuple[str, ...]


class Questions(Untrained):
    """Questions with answers, some drawn by the seed, for a given model.

    Args:
        questions: of which a seed draws.
        model: as `lm.text_model.text_model` takes it.
        budget: of each question.
        items: how many a seed draws.

    Raises:
        PacelineError: there is none.
    """

    name = "questions"
    title = "Questions"
    metric = "F1"
    better = "higher"
    floor = 0.0
    ceiling = 1.0
    vocab_size = 0
    length = 1

    def __init__(self, questions: Sequence[Question], model: str, budget: Budget, items: int = 8) -> None:
        if not questions or items < 1:
            raise PacelineError("There is no question: give a file with a line of JSON for each.")
        self.questions, self.model, self.budget = tuple(questions), model, budget
        self.items = min(items, len(self.questions))

    def drawn(self, seed: int) -> list[Question]:
        """The questions of a seed."""
        generator = torch.Generator().manual_seed(derive(seed, "questions"))
        return [self.questions[i] for i in torch.randperm(len(self.questions), generator=generator)[: self.items]]

    def describe(self) -> str:
        """See `Task.describe`."""
        digest = hashlib.sha256(repr(self.questions).encode()).hexdigest()[:8]
        limits = [f"{n:,} {of}" for n, of in ((self.budget.calls, "calls"), (self.budget.tokens, "tokens")) if n]
        within = f" within {' and '.join(limits)} each" if limits else ""
        return (
            f"Answer {self.items} of {len(self.questions)} questions (digest {digest}) with {self.model}{within}; "
            "a seed draws them."
        )


class Prompted(Contestant):
    """A pipeline.

    Args:
        name: as `pipeline` reads it.
    """

    settings = (0.0,)

    def __init__(self, name: str) -> None:
        self.name = name

    def identity(self) -> list[object]:
        """See `Contestant.identity`. A graph is what its file says."""
        written = Path(self.name).read_text(encoding="utf-8") if self.name.endswith(".json") else ""
        return [hashlib.sha256(written.encode()).hexdigest()]

    def check(self, event: Event) -> None:
        """See `Contestant.check`."""
        if not isinstance(event.task, Questions):
            raise PacelineError(f"{self.name} answers: it races on questions, not on {event.task.name}.")

    def run(self, job: Job, report: Report) -> Outcome:
        """See `Contestant.run`."""
        task = job.event.task
        assert isinstance(task, Questions)
        made, model = pipeline(self.name), text_model(task.model)
        began, items, spent, told = time.monotonic(), [], [], []
        questions = task.drawn(job.seed)
        made.prepare(report)
        for number, question in enumerate(questions):
            counted = Counted(model, task.budget)
            answer, failed = _answered(made, question.inputs, counted)
            items.append(f1(answer.text, question.answers))
            spent.append(counted)
            told.append({**made.meters(), "complete": float(answer.complete), "failed": failed})
            report(number + 1, len(questions), items[-1])
        calls, tokens = sum(c.calls for c in spent), sum(c.tokens for c in spent)
        names = sorted({name for meters in told for name in meters})
        meters = {name: fmean(meters.get(name, 0.0) for meters in told) for name in names}
        meters |= {"calls": calls / len(items), "tokens": tokens / len(items)}
        return Outcome(items, [], Ledger(tokens, 0.0, time.monotonic() - began, calls), meters)


def _answered(made: Pipeline, inputs: Mapping[str, str], counted: Counted) -> tuple[Answer, float]:
    """The answer, and 1 where the pipeline failed: a model may write what no pipeline can go on with."""
    try:
        return made.run(inputs, counted), 0.0
    except PacelineError:
        return Answer("", (), False), 1.0


def pipeline(text: str) -> Pipeline:
    """The pipeline that `text` names: a method of the family `prompt` with literals, or a graph's JSON file.

    Raises:
        PacelineError: no such method, argument or file.
    """
    if text.endswith(".json"):
        from paceline.prompt._config import read_studio

        return read_studio(Path(text))
    spec = parse(text)
    if spec.name not in methods("prompt"):
        find(spec.name, "prompt")
    kind: Any = part("prompt", spec.name)
    check(spec, kind)
    needed = [n for n, p in inspect.signature(kind).parameters.items() if p.default is p.empty]
    if missing := [name for name in needed if name not in spec.arguments]:
        mend = "give the JSON file of a graph" if spec.name == "studio" else "build it in Python"
        raise PacelineError(f"{spec.name} needs {' and '.join(missing)}: {mend}.")
    made: Pipeline = kind(**spec.arguments)
    return made


def f1(text: str, answers: Sequence[str]) -> float:
    """F1 between the words of a text and of the nearest answer; two texts without a word agree."""
    return max(_f1(_words(text), _words(answer)) for answer in answers)


def _f1(said: Counter[str], right: Counter[str]) -> float:
    if not said or not right:
        return float(said == right)
    shared = (said & right).total()
    return 2 * shared / (said.total() + right.total())


def _words(text: str) -> Counter[str]:
    bare = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return Counter(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def read_questions(path: Path) -> list[Question]:
    """The questions in a file of JSON lines: named texts, of which `answer` is one text or a list of them.

    Raises:
        PacelineError: it cannot be read, or a line is not such.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise PacelineError(f"Cannot read --questions {path} ({reason}).") from error
    found = [_question(line, f"Line {number} of {path}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise PacelineError(f"{path} has no question: write a line of JSON for each.")
    return found


def _question(line: str, place: str) -> Question:
    try:
        record = json.loads(line)
        answers = record.pop("answer")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PacelineError(f"{place} is no JSON object with an `answer`: {line[:60]!r}.") from error
    several = answers if isinstance(answers, list) else [answers]
    if not several or not all(isinstance(answer, str) and answer.strip() for answer in several):
        raise PacelineError(f"{place} has no answer: give a text, or a list of them.")
    if not record or not all(isinstance(value, str) for value in record.values()):
        raise PacelineError(f"{place} has no inputs: give texts by name, such as `question`.")
    return Question(record, tuple(several))
