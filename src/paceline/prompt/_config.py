"""A graph written down: JSON whose components are names with literals, as on the command line.

{"inputs": {"question": "Text"},
 "components": {"finder": "retrieve(documents='notes', k=3)",
                "reader": "ask(template='{passages}\\nQuestion: {question}\\nAnswer:', many=('passages',))"},
 "wires": [["question", "finder.query"], ["question", "reader.question"],
           ["finder.passages", "reader.passages"]],
 "outputs": ["reader.text"]}
"""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paceline.core.errors import PacelineError, suggest
from paceline.core.spec import Spec, check, parse
from paceline.lm.written import TextModel
from paceline.prompt._components import ask, demonstrations, join, retrieve
from paceline.prompt._graph import Component
from paceline.prompt._kinds import Kind
from paceline.prompt._senses import listen, see, speak
from paceline.prompt.studio import Studio

MAKERS: Mapping[str, Callable[..., Component]] = {
    "ask": ask, "demonstrations": demonstrations, "join": join, "listen": listen, "retrieve": retrieve, "see": see,
    "speak": speak,
}  # fmt: skip
KEYS = ("inputs", "components", "wires", "outputs")


def read_studio(path: Path, open_model: Callable[[str], TextModel] | None = None) -> Studio:
    """The graph in a file.

    Args:
        path: of the JSON.
        open_model: opens what `ask(model='...')` names. Default: `lm.text_model.text_model`.

    Raises:
        PacelineError: it cannot be read, is no graph, or one that cannot run.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PacelineError(f"Cannot read the graph {path} ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise PacelineError(f"{path} is no JSON: write a graph of {', '.join(KEYS)}.") from error
    if not isinstance(record, dict) or sorted(record) != sorted(KEYS):
        raise PacelineError(f"{path} is no graph: it needs {', '.join(KEYS)}, and nothing else.")
    inputs, components, wires, outputs = (record[key] for key in KEYS)
    if not _texts(inputs) or not _texts(components):
        raise PacelineError(f"In {path} inputs and components are objects, whose values are texts.")
    if not isinstance(wires, list) or not all(_pair(wire) for wire in wires):
        raise PacelineError(f"In {path} wires are a list of pairs, such as ['question', 'reader.question'].")
    if not isinstance(outputs, list) or not all(isinstance(output, str) for output in outputs):
        raise PacelineError(f"In {path} outputs are a list of texts, such as 'reader.text'.")
    made = {name: _component(name, text, open_model) for name, text in components.items()}
    return Studio(made, [(a, b) for a, b in wires], {n: _kind(n, k) for n, k in inputs.items()}, outputs)


def _component(name: str, text: str, open_model: Callable[[str], TextModel] | None) -> Component:
    spec = parse(text)
    if spec.name not in MAKERS:
        known = ", ".join(MAKERS)
        raise PacelineError(
            f"{name} is {spec.name!r}, which is no component: there are {known}.{suggest(spec.name, MAKERS)}"
        )
    maker: Any = MAKERS[spec.name]
    arguments: dict[str, Any] = dict(spec.arguments)
    model = arguments.pop("model", None) if maker is ask else None
    check(Spec(spec.name, arguments), maker, given=("model",) if maker is ask else ())
    needed = [n for n, p in inspect.signature(maker).parameters.items() if p.default is p.empty and n not in arguments]
    if needed:
        raise PacelineError(f"{name} needs {' and '.join(needed)}: write {spec.name}({needed[0]}=...).")
    if model is not None:
        arguments["model"] = (open_model or _open)(str(model))
    made: Component = maker(**arguments)
    return made


def _open(place: str) -> TextModel:
    from paceline.lm.text_model import text_model

    return text_model(place)


def _kind(name: str, text: str) -> Kind:
    known = {kind.value: kind for kind in Kind}
    if text not in known:
        raise PacelineError(f"The input {name} is of {text!r}, which is no type: there are {', '.join(known)}.")
    return known[text]


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(entry, str) for entry in value)
