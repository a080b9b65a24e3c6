"""`paceline prompt` says what the pipeline says, and refuses what it cannot read."""

import json

import pytest

from paceline.cli import prompt as module
from paceline.cli.prompt import read_inputs, run
from paceline.core.errors import PacelineError
from paceline.lm.written import Written
from paceline.prompt.studio import Failed


class Loud:
    def complete(self, prompt, tokens, stop=()):
        if "fail" in prompt:
            raise RuntimeError("it is down")
        return Written(prompt.upper(), 2, 1)

    def nats(self, prompt, continuations):
        raise NotImplementedError

    def count(self, text):
        return len(text.split())


@pytest.fixture
def graph(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "text_model", lambda *_, **__: Loud())
    record = {
        "inputs": {"question": "Text"},
        "components": {"first": "ask(template='so {question}')", "second": "ask(template='{text} and {question}')"},
        "wires": [["question", "first.question"], ["first.text", "second.text"], ["question", "second.question"]],
        "outputs": ["second.text"],
    }
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(record))
    return str(path)


def told(name, *inputs, calls=None, steps=False, as_json=False):
    run(name, "m", inputs, calls, None, False, steps, as_json)


def test_the_answer_is_printed(graph, capsys, tmp_path):
    (tmp_path / "q.txt").write_text("it \x1b[31mis")
    told(graph, f"question=@{tmp_path / 'q.txt'}", steps=True)
    out, err = capsys.readouterr()
    assert out.startswith("SO IT") and "\x1b[31" not in out + err and "first.text: SO IT" in err


def test_brackets_in_a_name_are_no_markup(graph, capsys):
    run(graph, "m[/b]", ["question=it is"], None, None, False, False, False)
    assert capsys.readouterr().out.startswith("SO IT")


def test_the_record_tells_what_it_took(graph, capsys):
    told(graph, "question=it = is", as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert (record["answer"], record["calls"], record["tokens"]) == ("SO IT = IS AND IT = IS", 2, 6)
    assert [step["step"] for step in record["steps"]] == ["first.text", "second.text"] and record["complete"]


def test_what_was_done_is_shown_when_the_budget_ends_or_a_component_fails(graph, capsys):
    told(graph, "question=it", calls=1)
    assert "after 1 calls" in capsys.readouterr().err
    with pytest.raises(Failed, match="first failed"):
        told(graph, "question=fail")


@pytest.mark.parametrize("given", ["question", "=a", "a b=c", "q=@/no/such/file"])
def test_inputs_of_another_form_are_refused(given):
    with pytest.raises(PacelineError, match="--input"):
        read_inputs([given])


def test_inputs_are_read_once(tmp_path):
    assert read_inputs(["a=1=2", "b="]) == {"a": "1=2", "b": ""}
    with pytest.raises(PacelineError, match="twice"):
        read_inputs(["a=1", "a=2"])
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(PacelineError, match="not UTF-8"):
        read_inputs([f"a=@{tmp_path / 'latin'}"])
