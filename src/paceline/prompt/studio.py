"""i-Code Studio: a graph of models and services with typed ports, composed without any training.

    Studio({"finder": retrieve(folder), "reader": ask("{passages}\\nQ: {question}\\nA:", many=("passages",))},
           wires=[("question", "finder.query"), ("question", "reader.question"),
                  ("finder.passages", "reader.passages")],
           inputs={"question": Kind.TEXT}, outputs=["reader.text"])

The graph is checked when it is made: types, missing and doubled wires, circles, what goes nowhere. Then each component
runs once, after those that it takes from; what it gives is checked against its ports. Calls of language models in it
are counted under one budget. Time and memory are the components' own.

Departures: the paper composes services of a cloud and gives no formulas; what its authors published is one agent, a web
page whose handler calls recognition, vision, language model and synthesis in turn, without a graph. Here a component is
a function in this process (an endpoint is one that asks a service), graphs are checked before they run, and the paper's
vision, video and translation models are left out: `_components.py` and `_senses.py` hold what comes in packages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.prompt._components import ask, demonstrations, embed, function, join, pipeline, retrieve
from paceline.prompt._contract import Answer, Counted, Pipeline, Spent
from paceline.prompt._graph import Component, Graph, Wire
from paceline.prompt._kinds import Kind, shown
from paceline.prompt._senses import heard, listen, see, seen, speak

__all__ = [
    "Component", "Failed", "Kind", "Studio", "ask", "demonstrations", "embed", "example", "function", "join", "listen",
    "pipeline", "retrieve", "see", "speak",
]  # fmt: skip

PAPERS = (
    Paper(
        title="i-Code Studio: A Configurable and Composable Framework for Integrative AI",
        arxiv="2305.13738",
        year=2023,
        says="pretrained models of several modalities, composed in a graph without finetuning, do multimodal tasks",
    ),
)


class Failed(PacelineError):
    """A component failed; `steps` is what was done before it."""

    def __init__(self, sentence: str, steps: tuple[tuple[str, str], ...]) -> None:
        super().__init__(sentence)
        self.steps = steps


class Studio(Pipeline):
    """A graph of components as a pipeline.

    Args:
        components: by name.
        wires: from an input of the graph or a component's output, to a component's input.
        inputs: what is given from outside, by name.
        outputs: what is asked for; the first is the answer.

    Raises:
        PacelineError: the graph cannot run.

    Attributes:
        values: of the last run, the inputs' and every output's that was reached, as `reader.text`.
    """

    def __init__(
        self,
        components: Mapping[str, Component],
        wires: Sequence[Wire],
        inputs: Mapping[str, Kind],
        outputs: Sequence[str],
    ) -> None:
        self.graph = Graph(dict(components), tuple(wires), dict(inputs), tuple(outputs))
        self.graph.check()
        self.values: dict[str, Any] = {}
        self._meters: dict[str, float] = {}

    def swapped(self, name: str, component: Component) -> "Studio":
        """The same graph with another component in a place.

        Raises:
            PacelineError: there is no such place, or it does not fit there.
        """
        graph = self.graph
        if name not in graph.components:
            raise PacelineError(f"There is no component {name!r} to swap: there are {', '.join(graph.components)}.")
        changed = replace(graph, components={**graph.components, name: component})
        return Studio(changed.components, changed.wires, changed.inputs, changed.outputs)

    def run(self, inputs: Mapping[str, str], model: Counted) -> Answer:
        """See `Pipeline.run`. A sound or a picture is given as the path of its file, a number in digits.

        Raises:
            Failed: a component did; what was done before it is kept.
            PacelineError: an input is missing, or not of its type.
        """
        return self.run_values({name: _read(name, kind, inputs) for name, kind in self.graph.inputs.items()}, model)

    def run_values(self, inputs: Mapping[str, Any], model: Counted) -> Answer:
        """As `run`, with values of the ports' types."""
        graph, calls = self.graph, model.calls
        for name, kind in graph.inputs.items():
            if name not in inputs or not kind.holds(inputs[name]):
                raise PacelineError(f"The graph's input {name} is missing or no {kind.value}: give one.")
        self.values = {name: inputs[name] for name in graph.inputs}
        self._meters = {}
        complete, done = True, 0
        for name in graph.order():
            try:
                self._step(name, model)
            except Spent:
                complete = False
                break
            done += 1
        self._meters = {"components_run": done / len(graph.components), "model_calls": float(model.calls - calls)}
        text = shown(self.values[graph.outputs[0]]) if graph.outputs[0] in self.values else ""
        return Answer(text, self._steps(), complete)

    def _step(self, name: str, model: Counted) -> None:
        component = self.graph.components[name]
        given = {port: self.values[start] for port, start in self.graph.sources(name).items()}
        try:
            made = component.run(model, given)
        except Spent:
            raise
        except Exception as error:  # whatever a component raises is told with its name, and the rest is kept
            raise self._failed(name, " ".join(str(error).split())[:200] or type(error).__name__) from error
        for port, kind in component.outputs.items():
            if not isinstance(made, Mapping) or port not in made or not kind.holds(made[port]):
                raise self._failed(name, f"its output {port} is no {kind.value}")
        self.values |= {f"{name}.{port}": made[port] for port in component.outputs}

    def _failed(self, name: str, reason: str) -> Failed:
        steps = self._steps()
        kept = (
            f"what was done before it is kept ({', '.join(s for s, _ in steps)})"
            if steps
            else "nothing was done before"
        )
        return Failed(f"The component {name} failed ({reason.rstrip('.')}); {kept}.", steps)

    def _steps(self) -> tuple[tuple[str, str], ...]:
        return tuple((name, shown(value)) for name, value in self.values.items() if "." in name)

    def meters(self) -> dict[str, float]:
        """The share of the components that ran, and the calls of language models."""
        return dict(self._meters)


def _read(name: str, kind: Kind, inputs: Mapping[str, str]) -> Any:
    """An input from its text."""
    text = inputs.get(name, "")
    if not text.strip():
        raise PacelineError(f"The pipeline needs the input {name!r}, which is missing or blank.")
    match kind:
        case Kind.TEXT:
            return text
        case Kind.TEXTS:
            return tuple(line for line in text.splitlines() if line.strip())
        case Kind.AUDIO:
            return heard(text)
        case Kind.IMAGE:
            return seen(text)
        case Kind.NUMBER:
            try:
                return float(text)
            except ValueError as error:
                raise PacelineError(f"The input {name} is a number, not {text[:40]!r}: give digits.") from error
    raise PacelineError(f"The input {name} is a vector, which cannot be given as text: use run_values in Python.")


def example() -> list[tuple[Pipeline, dict[str, str]]]:
    """A question that is searched for among three passages, then put to the model with the best of them."""
    texts = ("Martha lives in Oslo and keeps a parrot.", "Henry lives in Lima.", "Nina plays the harp in Cairo.")
    graph = Studio(
        {
            "finder": retrieve(texts, k=1),
            "reader": ask("{passages}\nQuestion: {question}\nAnswer:", tokens=8, many=("passages",)),
        },
        [("question", "finder.query"), ("question", "reader.question"), ("finder.passages", "reader.passages")],
        {"question": Kind.TEXT},
        ["reader.text"],
    )
    return [(graph, {"question": "Where does Martha live?"})]
