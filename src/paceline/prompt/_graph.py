"""A graph of components: what is wired to what, whether it can run, and in which order.

A wire goes from an input of the graph, written `question`, or from a component's output, `finder.passages`, to a
component's input, `reader.context`. An output may go to several places; an input takes one wire.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from paceline.core.errors import PacelineError, suggest
from paceline.prompt._contract import Counted
from paceline.prompt._kinds import Kind

Values = Mapping[str, Any]
Wire = tuple[str, str]


@dataclass(frozen=True)
class Component:
    """A part of a graph.

    Args:
        run: takes the model that the graph runs with, and a value for every input; gives one for every output.
        inputs: the type of each, by name.
        outputs: likewise.
    """

    run: Callable[[Counted, Values], Values]
    inputs: Mapping[str, Kind]
    outputs: Mapping[str, Kind]


@dataclass(frozen=True)
class Graph:
    """Components, and how they are joined.

    Args:
        components: by name.
        wires: from, to.
        inputs: what is given from outside, by name.
        outputs: what is asked for, such as `reader.text`; the first is the answer.
    """

    components: Mapping[str, Component]
    wires: Sequence[Wire]
    inputs: Mapping[str, Kind]
    outputs: Sequence[str]

    def order(self) -> list[str]:
        """The components, each after those that it takes from; of equals in the order that they were given in."""
        return list(self._sorter().static_order())

    def sources(self, component: str) -> dict[str, str]:
        """Where each input of a component comes from."""
        return {to.partition(".")[2]: start for start, to in self.wires if to.partition(".")[0] == component}

    def after(self, component: str) -> set[str]:
        """The components whose outputs depend on this one's, and itself."""
        found = {component}
        for name in self.order():
            if any(start.partition(".")[0] in found for start in self.sources(name).values() if "." in start):
                found.add(name)
        return found

    def problems(self) -> list[str]:
        """Why it cannot run, a sentence each; none where it can."""
        named = [*self._names()]
        if named:
            return named
        ends = [sentence for wire in self.wires for sentence in self._wire(*wire)]
        ends += [sentence for output in self.outputs for sentence in self._start(output)]
        return ends or [*self._missing(), *self._cycle(), *self._unused()]

    def check(self) -> None:
        """Refuse a graph that cannot run, before anything runs.

        Raises:
            PacelineError: the first of its problems.
        """
        for sentence in self.problems():
            raise PacelineError(sentence)

    def _sorter(self) -> "TopologicalSorter[str]":
        sorter: TopologicalSorter[str] = TopologicalSorter()
        for name in self.components:
            before = [start.partition(".")[0] for start in self.sources(name).values() if "." in start]
            sorter.add(name, *before)
        return sorter

    def _names(self) -> list[str]:
        if not self.components or not self.outputs:
            return ["A graph needs a component at least, and an output that is its answer."]
        odd = [name for name in (*self.components, *self.inputs) if not name.isidentifier()]
        both = [name for name in self.inputs if name in self.components]
        ports = [port for c in self.components.values() for port in (*c.inputs, *c.outputs) if not port.isidentifier()]
        said = [f"{name[:40]!r} is no name: give letters, digits and underscores." for name in (*odd, *ports)]
        return said + [f"{name} names an input and a component: rename one." for name in both]

    def _wire(self, start: str, to: str) -> list[str]:
        said = self._start(start)
        component, _, port = to.partition(".")
        if component not in self.components:
            near = suggest(component, self.components)
            return [*said, f"The wire {start} -> {to} ends at {component!r}, which is no component.{near}"]
        if port not in self.components[component].inputs:
            known = ", ".join(self.components[component].inputs) or "none"
            return [*said, f"{component} has no input {port!r}: its inputs are {known}."]
        if said:
            return said
        gives, takes = self._kind(start), self.components[component].inputs[port]
        if gives is takes:
            return []
        return [
            f"{start} gives {gives.value} and {to} takes {takes.value}: put a component between them that converts."
        ]

    def _start(self, start: str) -> list[str]:
        component, dot, port = start.partition(".")
        if not dot:
            near = suggest(component, self.inputs)
            return [] if component in self.inputs else [f"{component!r} is no input of the graph: declare it.{near}"]
        if component not in self.components:
            return [f"{start} is of {component!r}, which is no component.{suggest(component, self.components)}"]
        known = self.components[component].outputs
        return [] if port in known else [f"{component} has no output {port!r}: its outputs are {', '.join(known)}."]

    def _kind(self, start: str) -> Kind:
        component, dot, port = start.partition(".")
        return self.components[component].outputs[port] if dot else self.inputs[component]

    def _missing(self) -> list[str]:
        ends = [to for _, to in self.wires]
        twice = sorted({to for to in ends if ends.count(to) > 1})
        said = [f"{to} has {ends.count(to)} wires and takes one: leave the others out." for to in twice]
        wanted = [f"{name}.{port}" for name, c in self.components.items() for port in c.inputs]
        return said + [f"{to} has no wire: wire something to it." for to in wanted if to not in ends]

    def _cycle(self) -> list[str]:
        try:
            self._sorter().prepare()
        except CycleError as error:
            return [f"The wires go round in a circle, {' -> '.join(error.args[1])}: cut one of them."]
        return []

    def _unused(self) -> list[str]:
        used = {*(start for start, _ in self.wires), *self.outputs}
        given = [
            f"The input {name} goes nowhere: wire it, or leave it out." for name in self.inputs if name not in used
        ]
        outputs = [f"{name}.{port}" for name, c in self.components.items() for port in c.outputs]
        mend = "wire it, or name it among the graph's outputs"
        return given + [f"{output} is used nowhere: {mend}." for output in outputs if output not in used]
