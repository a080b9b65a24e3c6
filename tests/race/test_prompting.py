"""Pipelines race on questions: counted, scored, and within their budget."""

import json

import pytest

from paceline.core.errors import PacelineError
from paceline.lm.written import Written
from paceline.prompt._contract import Budget
from paceline.race import prompting as module
from paceline.race.contestant import Event, Job
from paceline.race.prompting import Prompted, Question, Questions, f1, pipeline, read_questions


class Last:
    """Answers with the last word of the prompt but one."""

    def complete(self, prompt, tokens, stop=()):
        return Written(prompt.split()[-2], len(prompt.split()), 1)

    def nats(self, prompt, continuations):
        raise NotImplementedError

    def count(self, text):
        return len(text.split())


@pytest.fixture
def graph(tmp_path):
    def write(template="Say {question} now", name="graph.json"):
        record = {
            "inputs": {"question": "Text"},
            "components": {"reader": f"ask(template={template!r}, tokens=4)"},
            "wires": [["question", "reader.question"]],
            "outputs": ["reader.text"],
        }
        (tmp_path / name).write_text(json.dumps(record))
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    ("text", "answers", "score"),
    [
        ("The harp.", ("harp",), 1.0),
        ("She plays the harp", ("a harp",), 0.5),
        ("drum", ("harp", "Drum!"), 1.0),
        ("", ("harp",), 0.0),
        ("the", ("",), 1.0),
        ("harp harp", ("harp",), 2 / 3),
    ],
)
def test_f1_counts_shared_words(text, answers, score):
    assert f1(text, answers) == pytest.approx(score)


def cell(task, tmp_path, name):
    return Prompted(name).run(Job(Event(task, 0, 0, 1), 0, 0.0, tmp_path), lambda *_: None)


def test_a_cell_answers_its_draw_and_is_billed(tmp_path, graph, monkeypatch):
    monkeypatch.setattr(module, "text_model", lambda place: Last())
    asked = [Question({"question": f"word{i}"}, (f"word{i}" if i % 2 else "other",)) for i in range(6)]
    task = Questions(asked, "smollm2", Budget(calls=2), 4)
    drawn = task.drawn(0)
    assert len(drawn) == 4 and drawn == task.drawn(0) and any(task.drawn(seed) != drawn for seed in range(1, 5))
    outcome = cell(task, tmp_path, graph())
    assert outcome.items == [float(question.answers[0] != "other") for question in drawn]
    assert (outcome.ledger.model_calls, outcome.ledger.tokens) == (4, 4 * (3 + 1))
    assert outcome.meters["complete"] == 1 and outcome.meters["calls"] == 1 and outcome.meters["failed"] == 0
    assert "2 calls" in task.describe() and "smollm2" in task.describe()


def test_a_budget_that_ends_and_a_pipeline_that_fails_score_nothing(tmp_path, graph, monkeypatch):
    monkeypatch.setattr(module, "text_model", lambda place: Last())
    asked = [Question({"question": "word"}, ("word",))]
    short = cell(Questions(asked, "m", Budget(tokens=3), 1), tmp_path, graph())
    assert short.items == [0.0] and short.meters["complete"] == 0 and short.ledger.model_calls == 0
    failing = cell(Questions(asked, "m", Budget(), 1), tmp_path, graph("{question}"))
    assert failing.items == [0.0] and failing.meters["failed"] == 1


def test_graphs_are_known_by_what_they_say(graph):
    first, second = graph("{question}", "a.json"), graph("More {question}", "b.json")
    assert Prompted(first).identity() != Prompted(second).identity()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("studio", "studio needs .*JSON"),
        ("nothing_such", "nothing_such"),
        ("none.json", "Cannot read"),
        ("a b", "read"),
    ],
)
def test_what_is_no_pipeline_is_refused(name, says):
    with pytest.raises(PacelineError, match=says):
        pipeline(name)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "no question"),
        ("nonsense", "Line 1 .* no JSON object"),
        ("[1]", "no JSON object"),
        ('{"question": "a"}', "an `answer`"),
        ('{"question": "a", "answer": []}', "no answer"),
        ('{"question": "a", "answer": " "}', "no answer"),
        ('{"answer": "a"}', "no inputs"),
        ('{"question": 1, "answer": "a"}', "no inputs"),
    ],
)
def test_files_of_questions_are_checked(tmp_path, line, says):
    path = tmp_path / "q.jsonl"
    path.write_text(line)
    with pytest.raises(PacelineError, match=says):
        read_questions(path)


def test_questions_are_read(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a", "document": "b", "answer": "c"}\n\n{"question": "d", "answer": ["e", "f"]}\n')
    first, second = read_questions(path)
    assert (first.inputs, first.answers) == ({"question": "a", "document": "b"}, ("c",)) and second.answers == (
        "e",
        "f",
    )
    with pytest.raises(PacelineError, match="Cannot read"):
        read_questions(tmp_path / "none")
    with pytest.raises(PacelineError, match="no question"):
        Questions([], "m", Budget())
