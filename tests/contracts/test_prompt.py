"""What every pipeline promises: whatever lies in `prompt/` is tested here against a scripted model.

`example()` of a module gives pairs of a pipeline and inputs that it can answer from.
"""

import hashlib

import pytest

from paceline.core.discovery import load, methods, part
from paceline.core.errors import PacelineError
from paceline.prompt._contract import Answer, Budget, Counted, Pipeline, Spent, TextModel, Written

NAMES = methods("prompt")
CASES = [(name, index) for name in NAMES for index in range(len(load("prompt", name).example()))]


class Scripted:
    """Says words that follow from the prompt, and keeps what it was asked. A word is a token."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.tokens = 0

    def complete(self, prompt, tokens, stop=()):
        self.asked.append(("complete", prompt))
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        text = " ".join(digest[4 * i : 4 * i + 3] for i in range(min(tokens, 5)))
        ends = [at for at in map(text.find, stop) if at >= 0]
        text = text[: min(ends)] if ends else text
        written = Written(text, self.count(prompt), self.count(text))
        self.tokens += written.read + written.made
        return written

    def nats(self, prompt, continuations):
        self.asked.append(("nats", prompt))
        read = sum(self.count(prompt + text) for text in continuations)
        self.tokens += read
        return [
            float(len(hashlib.sha256((prompt + c).encode()).hexdigest().strip("0123"))) for c in continuations
        ], read

    def count(self, text):
        return len(text.split())


every_case = pytest.mark.parametrize(("name", "index"), CASES, ids=[f"{n}-{i}" for n, i in CASES])


def run(name: str, index: int, budget: Budget) -> tuple[Answer, Counted, Scripted, Pipeline]:
    """A fresh pipeline's answer."""
    pipeline, inputs = load("prompt", name).example()[index]
    scripted = Scripted()
    counted = Counted(scripted, budget)
    return pipeline.run(inputs, counted), counted, scripted, pipeline


@pytest.mark.parametrize("name", NAMES)
def test_every_method_has_an_example(name):
    made = load("prompt", name).example()
    assert made and all(isinstance(pipeline, Pipeline) and inputs for pipeline, inputs in made)
    assert issubclass(part("prompt", name), Pipeline)
    assert isinstance(Scripted(), TextModel)


@every_case
def test_calls_and_tokens_are_counted(name, index):
    answer, counted, scripted, pipeline = run(name, index, Budget())
    assert answer.complete and isinstance(answer.text, str)
    assert (counted.calls, counted.tokens) == (len(scripted.asked), scripted.tokens) and counted.calls >= 1
    assert all(isinstance(step, str) and isinstance(output, str) for step, output in answer.steps)
    assert all(isinstance(value, float) for value in pipeline.meters().values())


@every_case
def test_each_call_is_told_and_what_is_learnt_beforehand_changes_no_answer(name, index):
    pipeline, inputs = load("prompt", name).example()[index]
    told, learnt = [], []
    pipeline.prepare(lambda done, of, loss: learnt.append((done, of)))
    counted = Counted(Scripted(), told=lambda calls, tokens: told.append((calls, tokens)))
    assert pipeline.run(inputs, counted) == run(name, index, Budget())[0]
    assert [calls for calls, _ in told] == list(range(1, counted.calls + 1)) and told[-1][1] == counted.tokens
    assert not learnt or learnt[-1][0] == learnt[-1][1]


@every_case
def test_the_same_question_gets_the_same_answer(name, index):
    first, second = (run(name, index, Budget()) for _ in range(2))
    assert first[0] == second[0] and first[2].asked == second[2].asked
    pipeline, inputs = load("prompt", name).example()[index]
    again = [pipeline.run(inputs, Counted(Scripted())) for _ in range(2)]
    assert again == [first[0]] * 2


@every_case
def test_the_budget_is_never_exceeded(name, index):
    whole, counted, *_ = run(name, index, Budget())
    assert run(name, index, Budget(calls=counted.calls))[0] == whole
    for calls in range(1, counted.calls):
        answer, spent, scripted, _ = run(name, index, Budget(calls=calls))
        assert len(scripted.asked) == spent.calls <= calls and not answer.complete
    for tokens in (1, counted.tokens // 2 or 1, max(1, counted.tokens - 1)):
        answer, spent, scripted, _ = run(name, index, Budget(tokens=tokens))
        assert scripted.tokens == spent.tokens <= tokens and not answer.complete


@every_case
def test_missing_inputs_are_refused(name, index):
    pipeline, inputs = load("prompt", name).example()[index]
    for given in ({}, dict.fromkeys(inputs, " \n")):
        with pytest.raises(PacelineError) as refused:
            pipeline.run(given, Counted(Scripted()))
        assert not isinstance(refused.value, Spent)


def test_a_call_that_would_break_the_budget_is_not_made():
    scripted = Scripted()
    counted = Counted(scripted, Budget(tokens=10))
    with pytest.raises(Spent, match="10 tokens"):
        counted.complete("one two three", 8)
    assert not scripted.asked and counted.complete("one two three", 7)
    with pytest.raises(PacelineError, match="at least 1"):
        Budget(calls=0)
