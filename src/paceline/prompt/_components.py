"""Components that read and write text: language models, search, demonstrations, and any function."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from paceline.core.discovery import find, part
from paceline.core.errors import PacelineError
from paceline.core.spec import check, parse
from paceline.lm.written import TextModel
from paceline.prompt._contract import Counted, Pipeline
from paceline.prompt._graph import Component, Values
from paceline.prompt._kinds import Kind
from paceline.retrieve._contract import Encoder, Retriever
from paceline.retrieve._passages import read_folder


def ask(
    template: str,
    tokens: int = 48,
    stop: Sequence[str] = ("\n",),
    many: Sequence[str] = (),
    model: TextModel | None = None,
) -> Component:
    """A language model that goes on with a template: `text`.

    Args:
        template: its fields, such as `{question}`, are the inputs.
        tokens: the most that are written.
        stop: texts before which it ends.
        many: those fields that take texts, which are put in a line each.
        model: asked in place of the one that the graph runs with, under the same count.

    Raises:
        PacelineError: a field that is no name, or a `many` that is no field.
    """
    names = _fields(template)
    stop, many = _several(stop), _several(many)
    if odd := [name for name in many if name not in names]:
        raise PacelineError(f"The template has no field {odd[0]!r}: its fields are {', '.join(names) or 'none'}.")

    def run(given: Counted, values: Values) -> Values:
        texts = {name: "\n".join(values[name]) if name in many else values[name] for name in names}
        prompt = template.format_map(texts)
        return {"text": _with(given, model, lambda counted: counted.complete(prompt, tokens, stop)).strip()}

    inputs = {name: Kind.TEXTS if name in many else Kind.TEXT for name in names}
    return Component(run, inputs, {"text": Kind.TEXT})


def _several(texts: Sequence[str]) -> tuple[str, ...]:
    """One text alone means a tuple of it."""
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _with(given: Counted, model: TextModel | None, call: Callable[[Counted], str]) -> str:
    """A call of another model under the same count."""
    if model is None:
        return call(given)
    other = Counted(model, given.budget, given.calls, given.tokens)
    try:
        return call(other)
    finally:
        given.calls, given.tokens = other.calls, other.tokens


def _fields(template: str) -> list[str]:
    """The names of a template's fields, in order, each once."""
    try:
        found = [(name, form, turn) for _, name, form, turn in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise PacelineError(f"The template cannot be read ({error}): double the braces that are text.") from error
    for name, form, turn in found:
        if not name.isidentifier() or form or turn:
            raise PacelineError(
                f"The template's field {name[:40]!r} is no plain name: write {{question}}, for example."
            )
    return list(dict.fromkeys(name for name, _, _ in found))


def retrieve(documents: str | Path | Sequence[str], how: str | Retriever = "bm25", k: int = 3) -> Component:
    """Search: the `passages` that are nearest to `query`, best first. Reads and indexes when it is made.

    Args:
        documents: a folder, or texts.
        how: a method of the family `retrieve`, such as `bm25(b=0.3)` or `dense`; or a retriever itself.
        k: how many.

    Raises:
        PacelineError: no text, no such method, or one that needs a model that writes.
    """
    if isinstance(documents, (str, Path)):
        texts = [passage.text for passage in read_folder(Path(documents)).passages]
    else:
        texts = list(documents)
    if k < 1:
        raise PacelineError(f"At least one passage must be asked for, not {k}.")
    retriever = _retriever(how) if isinstance(how, str) else how
    retriever.index(texts)

    def run(_: Counted, values: Values) -> Values:
        hits = retriever.search([values["query"]], k)
        return {"passages": tuple(texts[number] for number in hits.ids[0].tolist())}

    return Component(run, {"query": Kind.TEXT}, {"passages": Kind.TEXTS})


def _retriever(how: str) -> Retriever:
    spec = parse(how)
    family, name = find(spec.name, "retrieve")
    kind: Any = part(family, name)
    if name == "hyde":
        raise PacelineError("hyde needs a model that writes: make it in Python, and give the retriever itself.")
    check(spec, kind)
    made: Retriever = kind(**spec.arguments)
    return made


def demonstrations(examples: Sequence[tuple[str, str]], how: str | Retriever = "bm25", k: int = 4) -> Component:
    """Demonstrations for a question: of questions with answers those nearest to `question`, the nearest last.

    Raises:
        PacelineError: there are none, or some are no pairs of texts, or no such way to search.
    """
    pairs = [isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(x, str) for x in pair) for pair in examples]
    if not pairs or not all(pairs):
        raise PacelineError("Demonstrations are pairs of a question and its answer: give at least one.")
    questions = [question for question, _ in examples]
    search = retrieve(questions, how, k)

    def run(model: Counted, values: Values) -> Values:
        found = search.run(model, {"query": values["question"]})["passages"]
        chosen = [examples[questions.index(question)] for question in reversed(found)]
        return {"texts": tuple(f"{question}\n{answer}\n" for question, answer in chosen)}

    return Component(run, {"question": Kind.TEXT}, {"texts": Kind.TEXTS})


def embed(encoder: Encoder) -> Component:
    """A sentence encoder: the `vector` of a `text`, of length 1."""

    def run(_: Counted, values: Values) -> Values:
        return {"vector": np.asarray(encoder([values["text"]])[0].numpy(), np.float32)}

    return Component(run, {"text": Kind.TEXT}, {"vector": Kind.VECTOR})


def join(separator: str = "\n") -> Component:
    """Texts as one `text`."""
    return function(separator.join, {"texts": Kind.TEXTS}, Kind.TEXT, "text")


def function(call: Callable[..., Any], inputs: Mapping[str, Kind], gives: Kind, name: str = "out") -> Component:
    """Any function of Python. With several inputs they are given by name, one alone by place.

    Args:
        call: the function.
        inputs: types by name.
        gives: the type of what it returns.
        name: of the output.
    """

    def run(_: Counted, values: Values) -> Values:
        return {name: call(*values.values()) if len(values) == 1 else call(**values)}

    return Component(run, dict(inputs), {name: gives})


def pipeline(inside: Pipeline, *names: str) -> Component:
    """Another pipeline as a component: its inputs by name, its answer as `text`. Its calls count with the graph's."""

    def run(model: Counted, values: Values) -> Values:
        answer = inside.run(values, model)
        if not answer.complete and model.budget.calls is None and model.budget.tokens is None:
            raise PacelineError("it ended before it was done")
        return {"text": answer.text}

    return Component(run, dict.fromkeys(names, Kind.TEXT), {"text": Kind.TEXT})
