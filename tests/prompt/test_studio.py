"""What i-Code Studio promises: typed ports, refusals before anything runs, each component once, exchangeable parts."""

import json
import shutil
import sys

import numpy as np
import pytest

from paceline.core.errors import PacelineError
from paceline.prompt._components import ask, demonstrations, embed, function, join, pipeline, retrieve
from paceline.prompt._config import read_studio
from paceline.prompt._contract import Answer, Budget, Counted, Pipeline, Written
from paceline.prompt._graph import Component
from paceline.prompt._kinds import Kind, Picture, Sound, shown
from paceline.prompt._senses import _reader, heard, listen, resampled, see, seen, speak
from paceline.prompt.studio import Failed, Studio, example
from paceline.retrieve.dense import Trigrams

TEXTS = ("Martha lives in Oslo and keeps a parrot.", "Henry lives in Lima.", "Nina plays the harp in Cairo.")
T = Kind.TEXT


class Echo:
    """Answers with the prompt in capitals."""

    def __init__(self, says=str.upper):
        self.says = says

    def complete(self, prompt, tokens, stop=()):
        text = self.says(prompt)
        return Written(text, len(prompt.split()), 1)

    def nats(self, prompt, continuations):
        raise NotImplementedError

    def count(self, text):
        return len(text.split())


def text(call, *names) -> Component:
    return function(call, dict.fromkeys(names, T), T)


def diamond(log=None, middle=str.upper) -> Studio:
    """a -> b, c -> d."""

    def noted(name, call):
        def run(*texts, **named):
            if log is not None:
                log.append(name)
            return call(*texts, **named)

        return run

    return Studio(
        {
            "d": text(noted("d", lambda x, y: x + y), "x", "y"),
            "b": text(noted("b", middle), "x"),
            "c": text(noted("c", lambda x: x[::-1]), "x"),
            "a": text(noted("a", str.strip), "x"),
        },
        [("given", "a.x"), ("a.out", "b.x"), ("a.out", "c.x"), ("b.out", "d.x"), ("c.out", "d.y")],
        {"given": T},
        ["d.out", "b.out"],
    )


def test_each_component_runs_once_after_those_it_takes_from():
    log = []
    studio = diamond(log)
    answer = studio.run({"given": " ab "}, Counted(Echo()))
    assert answer.text == "ABba" and sorted(log) == ["a", "b", "c", "d"] and log[0] == "a" and log[-1] == "d"
    assert dict(answer.steps) == {"a.out": "ab", "b.out": "AB", "c.out": "ba", "d.out": "ABba"}
    assert studio.meters() == {"components_run": 1.0, "model_calls": 0.0}


def test_a_swap_changes_only_what_depends_on_it():
    studio = diamond()
    swapped = studio.swapped("b", text(str.title, "x"))
    for each in (studio, swapped):
        each.run({"given": "ab"}, Counted(Echo()))
    assert {n for n in studio.values if studio.values[n] != swapped.values[n]} == {"b.out", "d.out"}
    assert studio.graph.after("b") == {"b", "d"} and studio.graph.after("a") == {"a", "b", "c", "d"}
    with pytest.raises(PacelineError, match=r"b has no input 'x'|b has no output"):
        studio.swapped("b", text(str.title, "other"))
    with pytest.raises(PacelineError, match="no component 'z'"):
        studio.swapped("z", text(str.title, "x"))


NUMBER = function(float, {"x": T}, Kind.NUMBER)


@pytest.mark.parametrize(
    ("components", "wires", "inputs", "outputs", "says"),
    [
        ({}, [], {}, ["a.out"], "needs a component"),
        ({"a": text(str, "x")}, [("q", "a.x")], {"q": T}, [], "needs a component at least, and an output"),
        ({"a b": text(str, "x")}, [("q", "a b.x")], {"q": T}, ["a b.out"], "'a b' is no name"),
        ({"q": text(str, "x")}, [("q", "q.x")], {"q": T}, ["q.out"], "an input and a component"),
        ({"a": text(str, "x")}, [("q", "z.x")], {"q": T}, ["a.out"], "'z', which is no component"),
        ({"a": text(str, "x")}, [("z.out", "a.x")], {"q": T}, ["a.out"], "'z', which is no component"),
        ({"a": text(str, "x")}, [("q", "a.y")], {"q": T}, ["a.out"], "a has no input 'y': its inputs are x"),
        ({"a": text(str, "x")}, [("q", "a.x")], {"q": T}, ["a.y"], "a has no output 'y': its outputs are out"),
        ({"a": text(str, "x")}, [("p", "a.x")], {"q": T}, ["a.out"], "'p' is no input of the graph"),
        ({"a": text(str, "x")}, [("q", "a.x")], {"q": Kind.IMAGE}, ["a.out"], "q gives Image and a.x takes Text"),
        (
            {"n": NUMBER, "a": text(str, "x")}, [("q", "n.x"), ("n.out", "a.x")], {"q": T}, ["a.out"],
            "n.out gives Number and a.x takes Text: put a component between",
        ),
        ({"a": text(str, "x", "y")}, [("q", "a.x")], {"q": T}, ["a.out"], "a.y has no wire"),
        ({"a": text(str, "x")}, [("q", "a.x"), ("q", "a.x")], {"q": T}, ["a.out"], "a.x has 2 wires"),
        (
            {"a": text(str, "x", "y"), "b": text(str, "x")},
            [("q", "a.x"), ("b.out", "a.y"), ("a.out", "b.x")], {"q": T}, ["b.out"], "circle, .* -> ",
        ),
        ({"a": text(str, "x")}, [("q", "a.x")], {"q": T, "p": T}, ["a.out"], "The input p goes nowhere"),
        (
            {"a": text(str, "x"), "b": text(str, "x")}, [("q", "a.x"), ("q", "b.x")], {"q": T}, ["a.out"],
            "b.out is used nowhere",
        ),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_runs(components, wires, inputs, outputs, says):
    with pytest.raises(PacelineError, match=says) as refused:
        Studio(components, wires, inputs, outputs)
    assert "\n" not in str(refused.value)


def test_what_was_done_is_kept_when_a_component_fails():
    studio = diamond(middle=lambda _: 1 / 0)
    with pytest.raises(Failed, match=r"The component b failed \(division by zero\); what .* is kept \(a.out") as failed:
        studio.run({"given": "ab"}, Counted(Echo()))
    assert failed.value.steps[0] == ("a.out", "ab") and studio.values["a.out"] == "ab"
    with pytest.raises(Failed, match="its output out is no Text"):
        diamond(middle=len).run({"given": "ab"}, Counted(Echo()))


def test_calls_of_all_models_count_under_one_budget():
    parts = {"first": ask("{q}"), "second": ask("{q} again", model=Echo(str.lower))}
    studio = Studio(parts, [("q", "first.q"), ("first.text", "second.q")], {"q": T}, ["second.text"])
    counted = Counted(Echo())
    answer = studio.run({"q": "So it is"}, counted)
    assert (answer.text, counted.calls, counted.tokens) == ("so it is again", 2, 3 + 1 + 4 + 1)
    short = studio.run({"q": "So it is"}, Counted(Echo(), Budget(calls=1)))
    assert not short.complete and short.steps == (("first.text", "SO IT IS"),) and short.text == ""
    assert studio.meters()["components_run"] == 0.5


def test_outputs_equal_direct_calls():
    studio, inputs = example()[0]
    answer = studio.run(inputs, Counted(Echo()))
    prompt = f"{TEXTS[0]}\nQuestion: {inputs['question']}\nAnswer:"
    assert answer.text == Echo().complete(prompt, 8).text


def test_components_do_what_they_say(tmp_path):
    none = Counted(Echo())
    (tmp_path / "a.txt").write_text(TEXTS[0])
    (tmp_path / "b.txt").write_text(TEXTS[1])
    found = retrieve(tmp_path, k=1).run(none, {"query": "Henry"})
    assert found == {"passages": (TEXTS[1],)} == retrieve(str(tmp_path), "bm25(b=0.2)", 1).run(none, {"query": "Henry"})
    shots = demonstrations([("2 apples", "two"), ("3 pears", "three"), ("4 plums", "four")], k=2)
    assert shots.run(none, {"question": "pears and apples, apples"})["texts"][-1] == "2 apples\ntwo\n"
    assert join(" ").run(none, {"texts": ("a", "b")}) == {"text": "a b"}
    vector = embed(Trigrams()).run(none, {"text": "hello"})["vector"]
    assert Kind.VECTOR.holds(vector) and np.linalg.norm(vector) == pytest.approx(1)
    assert ask("{a}: {b} {{}}", many="b").run(none, {"a": "x", "b": ("1", "2")}) == {"text": "X: 1\n2 {}"}

    class Twice(Pipeline):
        def run(self, inputs, model):
            return Answer(model.complete(inputs["q"], 3) * 2)

    assert pipeline(Twice(), "q").run(none, {"q": "a"}) == {"text": "AA"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ask("{0}"), "no plain name"),
        (lambda: ask("{q.real}"), "no plain name"),
        (lambda: ask("{q!r}"), "no plain name"),
        (lambda: ask("{q"), "cannot be read"),
        (lambda: ask("{q}", many=("p",)), "no field 'p'"),
        (lambda: retrieve("no-such-folder"), "no-such-folder"),
        (lambda: retrieve(TEXTS, k=0), "At least one"),
        (lambda: retrieve(TEXTS, "hyde"), "needs a model"),
        (lambda: retrieve(TEXTS, "lora"), "lora"),
        (lambda: demonstrations([]), "pairs"),
    ],
)
def test_components_that_cannot_be_are_refused(make, says):
    with pytest.raises(PacelineError, match=says):
        make()


def test_kinds_hold_what_they_say(tmp_path):
    wave = Sound(np.zeros(4, np.float32), 8000)
    picture = Picture(np.zeros((2, 3, 3), np.uint8))
    values = ["a", ("a",), wave, picture, 1.0, np.zeros(3, np.float32)]
    assert [[kind.holds(value) for value in values] for kind in Kind] == np.eye(6, dtype=bool).tolist()
    assert not Kind.NUMBER.holds(float("nan")) and not Kind.TEXTS.holds(("a", 1))
    assert shown(wave) == "0.0 s of sound" and shown(picture) == "a picture of 3 x 2" and shown(1.5) == "1.5"
    assert wave == Sound(np.zeros(4, np.float32), 8000) != Sound(np.ones(4, np.float32), 8000)


def written(tmp_path, **changes):
    record = {
        "inputs": {"question": "Text"},
        "components": {
            "finder": f"retrieve(documents={str(tmp_path / 'notes')!r}, k=1)",
            "reader": "ask(template='{passages} {question}', many=('passages',), model='other')",
        },
        "wires": [["question", "finder.query"], ["question", "reader.question"],
                  ["finder.passages", "reader.passages"]],
        "outputs": ["reader.text"],
        **changes,
    }  # fmt: skip
    (tmp_path / "notes").mkdir(exist_ok=True)
    (tmp_path / "notes" / "a.txt").write_text(TEXTS[1])
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
    return path


def test_a_graph_is_read_from_a_file(tmp_path):
    opened = []
    studio = read_studio(written(tmp_path), lambda name: opened.append(name) or Echo())
    answer = studio.run({"question": "Where is Henry?"}, Counted(Echo()))
    assert answer.text == "HENRY LIVES IN LIMA. WHERE IS HENRY?" and opened == ["other"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs": None}, "needs inputs, components, wires, outputs"),
        ({"more": 1}, "nothing else"),
        ({"inputs": {"question": "Word"}}, "'Word', which is no type"),
        ({"inputs": ["question"]}, "objects"),
        ({"components": {"reader": 3}}, "objects"),
        ({"components": {"reader": "asks(template='x')"}}, "no component.*Did you mean 'ask'"),
        ({"components": {"reader": "ask()"}}, "reader needs template"),
        ({"components": {"reader": "retrieve(documents='a', model='b')"}}, "no argument 'model'"),
        ({"components": {"reader": "join(separator=__import__('os'))"}}, "Cannot read"),
        ({"wires": [["question"]]}, "pairs"),
        ({"outputs": "reader.text"}, "list of texts"),
    ],
)
def test_files_that_hold_no_graph_are_refused(tmp_path, changes, says):
    with pytest.raises(PacelineError, match=says):
        read_studio(written(tmp_path, **changes), lambda _: Echo())
    (tmp_path / "graph.json").write_text("{")
    with pytest.raises(PacelineError, match="no JSON"):
        read_studio(tmp_path / "graph.json")
    with pytest.raises(PacelineError, match="Cannot read"):
        read_studio(tmp_path / "none.json")


def test_files_of_sound_and_pictures_are_checked(tmp_path):
    bad = tmp_path / "bad"
    bad.write_bytes(b"RIFF1234WAVE, but not really")
    for read, says in ((heard, "no WAV"), (seen, "no picture")):
        with pytest.raises(PacelineError, match=says):
            read(str(bad))
    for read in (heard, seen):
        with pytest.raises(PacelineError, match="nowhere"):
            read("nowhere")


def test_resampling_keeps_a_tone():
    at = np.arange(22_050) / 22_050
    tone = Sound(np.sin(2 * np.pi * 440 * at).astype(np.float32), 22_050)
    ideal = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(resampled(tone, 16_000) - ideal)[500:-500].max() < 2e-3


GRAMMAR = (
    "#JSGF V1.0; grammar q; public <q> = where does (martha | henry) live | what fruit does (martha | henry) grow;"
)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
def test_what_is_spoken_is_heard():
    pytest.importorskip("pocketsphinx")
    studio = Studio(
        {"speaker": speak("en-us+f3", 130), "listener": listen(GRAMMAR)},
        [("text", "speaker.text"), ("speaker.audio", "listener.audio")], {"text": T}, ["listener.text"],
    )  # fmt: skip
    for question in ("where does martha live", "what fruit does henry grow"):
        assert studio.run({"text": question}, Counted(Echo())).text == question
    assert studio.values["speaker.audio"].rate == 22_050
    again = speak("en-us+f3", 130).run(Counted(Echo()), {"text": "what fruit does henry grow"})["audio"]
    assert again == studio.values["speaker.audio"]
    with pytest.raises(PacelineError, match="JSGF"):
        listen("public <q = ;")
    for voice, speed in (("-x", 130), ("en us", 130), ("en-us", 5)):
        with pytest.raises(PacelineError):
            speak(voice, speed)
    with pytest.raises(PacelineError, match="made no sound"):
        speak("xx-none").run(Counted(Echo()), {"text": "hello"})


def test_text_in_a_picture_is_read(tmp_path):
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (640, 120), "white")
    ImageDraw.Draw(image).text((20, 20), "Martha lives in Oslo.", fill="black", font=ImageFont.load_default(28))
    image.save(tmp_path / "page.png")
    studio = Studio({"reader": see()}, [("page", "reader.image")], {"page": Kind.IMAGE}, ["reader.lines"])
    assert studio.run({"page": str(tmp_path / "page.png")}, Counted(Echo())).text == "Martha lives in Oslo."


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    for make, says in ((listen, "pip install pocketsphinx"), (_reader.__wrapped__, "rapidocr"), (speak, "apt-get")):
        with pytest.raises(PacelineError, match=says):
            make()
