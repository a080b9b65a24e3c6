"""Plans over a document: typed actions, their text form, and what makes a plan one that can be executed.

    New actions:
    - COUNT(CTX, X) : Count how often X happens in CTX.

    1. falls = FIND(CTX, "the falls of Martha") : Find every fall.
    2. ans = COUNT(CTX, falls) : Count them.

A plan is a line per step: a name, an action, and for each of its arguments a text in quotes, the name of an earlier
step, whose output it is, or `CTX`, the document. Numbers before and explanations behind are as one likes. `NAME(S1,
...)` takes one text or more.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from paceline.core.errors import PacelineError, suggest

CONTEXT = "CTX"
"""The document, in plans and among the arguments of actions."""
FIELD = re.compile(r"\{(\w+)\}")
_NAME = r"[A-Za-z_]\w*"
_ACTION = re.compile(rf"[-*\s]*({_NAME})\s*\(([^()]*)\)\s*(?:[:#]+\s*(.*))?")
_STEP = re.compile(rf"\s*(?:\d+\s*[.)]|[-*])?\s*({_NAME})\s*=\s*({_NAME})\s*\(")
_TOKEN = re.compile(rf"""\s*(?:"([^"\n]*)"|'([^'\n]*)'|({_NAME}))\s*(,|\))""")
_SHOWN = 60
"""Signs of a line that a message repeats."""


@dataclass(frozen=True)
class Action:
    """What a step can do.

    Args:
        name: as plans write it, such as `FIND`.
        arguments: their names, in order; `CTX` is a document to read. With a last one `...` it takes one text or more.
        says: what it does, in a sentence: planners and executors read it.
        template: the prompt, for models that need one of their own: its fields are the arguments in braces, and
            `{question}`. Default: `pearl.py` writes one out of the sentence.
        gathers: what several pieces of a document answer stays lines, as lists do; else the action reads them again.
        after: makes of its arguments by name, `CTX` being the piece, and of the model's text what the step gives.

    Raises:
        PacelineError: a name that is none, or a field that is no argument.
    """

    name: str
    arguments: tuple[str, ...]
    says: str = ""
    template: str = ""
    gathers: bool = False
    after: Callable[[Mapping[str, str], str], str] | None = None

    def __post_init__(self) -> None:
        named = self.arguments[:-1] if self.many else self.arguments
        if odd := [name for name in (self.name, *named) if not re.fullmatch(_NAME, name)]:
            raise PacelineError(f"{odd[0][:_SHOWN]!r} is no name of an action or argument: write FIND(CTX, X) : what.")
        if not named or len(set(named)) < len(named):
            raise PacelineError(f"The action {self.name} needs arguments, each of another name.")
        known = (*named, "question")
        if odd := [name for name in FIELD.findall(self.template) if name not in known]:
            raise PacelineError(f"The template of {self.name} has a field {odd[0]!r}: it may have {', '.join(known)}.")

    @property
    def many(self) -> bool:
        """Whether it takes any number of texts."""
        return self.arguments[-1:] == ("...",)

    @property
    def reads(self) -> bool:
        """Whether it reads a document."""
        return CONTEXT in self.arguments

    def named(self, count: int) -> tuple[str, ...]:
        """The names of so many arguments."""
        named = (self.arguments[:-1] if self.many else self.arguments)[:count]
        return (*named, *(f"S{number}" for number in range(len(named) + 1, count + 1)))

    @property
    def head(self) -> str:
        """Without the sentence: `FIND(CTX, X)`."""
        return f"{self.name}({', '.join(self.arguments)})"

    def __str__(self) -> str:
        return f"{self.head} : {self.says}" if self.says else self.head


Registry = Mapping[str, Action]
"""Actions by name."""


@dataclass(frozen=True)
class Argument:
    """Of a step: a text, or the name of what gives one."""

    text: str
    literal: bool

    def __str__(self) -> str:
        quote = "'" if '"' in self.text else '"'
        return f"{quote}{self.text}{quote}" if self.literal else self.text


@dataclass(frozen=True)
class Step:
    """One line of a plan."""

    output: str
    action: Action
    arguments: tuple[Argument, ...]
    says: str = ""

    @property
    def uses(self) -> tuple[str, ...]:
        """The outputs that it takes."""
        return tuple(a.text for a in self.arguments if not a.literal and a.text != CONTEXT)

    @property
    def call(self) -> str:
        """The action with these arguments."""
        return f"{self.action.name}({', '.join(map(str, self.arguments))})"

    def __str__(self) -> str:
        return f"{self.output} = {self.call}" + (f" : {self.says}" if self.says else "")


@dataclass(frozen=True)
class Plan:
    """Steps in the order in which they are executed. `str(plan)` parses back to an equal plan."""

    steps: tuple[Step, ...]
    new: dict[str, Action] = field(default_factory=dict)
    """Actions that the plan brings along."""

    @property
    def unused(self) -> tuple[str, ...]:
        """The outputs that no step takes: what the plan is for."""
        used = {name for step in self.steps for name in step.uses}
        return tuple(step.output for step in self.steps if step.output not in used)

    def __str__(self) -> str:
        new = "\n".join(f"- {action}" for action in self.new.values()) or "- None"
        steps = "\n".join(f"{number}. {step}" for number, step in enumerate(self.steps, 1))
        return f"New actions:\n{new}\n\n{steps}"


def read_action(line: str) -> Action:
    """The action in `FIND(CTX, X) : what it does`; `#` in place of the colon is well, too.

    Raises:
        PacelineError: it is none.
    """
    found = _ACTION.fullmatch(line.strip())
    if found is None:
        raise PacelineError(f"{line.strip()[:_SHOWN]!r} is no action: write FIND(CTX, X) : what it does.")
    name, arguments, says = found.groups()
    return Action(name, tuple(part.strip() for part in arguments.split(",")), (says or "").strip())


def read_actions(text: str) -> dict[str, Action]:
    """The actions in the lines of a text; lines that are none are left out, and of like names the first counts."""
    actions: dict[str, Action] = {}
    for line in text.splitlines():
        try:
            action = read_action(line)
        except PacelineError:
            continue
        actions.setdefault(action.name, action)
    return actions


def read_new_actions(text: str) -> dict[str, Action]:
    """The actions that a plan brings along, whether or not it can be executed."""
    return read_actions(_halves(text)[0])


def read_plan(text: str, actions: Registry) -> Plan:
    """The plan in a text.

    Lines before the first step may bring new actions; other lines without `=` are passed over, for models talk.

    Raises:
        PacelineError: there is no step; a step cannot be read, names an unknown action, has too few or too many
            arguments, takes what nothing gives or what comes later, needs itself, or gives a name twice.
    """
    steps: list[Step] = []
    before, lines = _halves(text)
    new = {name: action for name, action in read_actions(before).items() if name not in actions}
    for line in lines:
        if _STEP.match(line) or "=" in line.split(":")[0]:
            steps.append(_step(line, {**actions, **new}))
    if not steps:
        raise PacelineError('The plan has no step: write lines such as ans = FIND(CTX, "the name of the ship").')
    _check(steps)
    return Plan(tuple(steps), new)


def _halves(text: str) -> tuple[str, list[str]]:
    """What comes before the first step, and the lines from there on."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if _STEP.match(line)), len(lines))
    return "\n".join(lines[:first]), lines[first:]


def _step(line: str, actions: Registry) -> Step:
    shown = line.strip()[:_SHOWN]
    found = _STEP.match(line)
    if found is None:
        raise PacelineError(f'The step {shown!r} cannot be read: write name = ACTION(CTX, "text", other_name).')
    output, name = found.groups()
    if output == CONTEXT:
        raise PacelineError(f"The step {shown!r} gives {CONTEXT}, which is the document: choose another name.")
    if name not in actions:
        raise PacelineError(f"There is no action {name}.{suggest(name, actions) or _few(actions)}")
    arguments, rest = _arguments(line, found.end())
    action, count = actions[name], len(arguments)
    least = 1 if action.many else len(action.arguments)
    if count < least or (count > least and not action.many):
        more = " or more" if action.many else ""
        raise PacelineError(f"{action.head} takes {least}{more} arguments, and {shown!r} gives {count}.")
    return Step(output, action, arguments, rest.strip().lstrip(":#").strip())


def _arguments(line: str, start: int) -> tuple[tuple[Argument, ...], str]:
    """The arguments from behind the bracket on, and what follows them."""
    given: list[Argument] = []
    while True:
        found = _TOKEN.match(line, start)
        if found is None:
            raise PacelineError(
                f'The arguments of {line.strip()[:_SHOWN]!r} cannot be read: give "texts in quotes" and names of steps.'
            )
        double, single, name, after = found.groups()
        given.append(Argument(name or double or single or "", name is None))
        start = found.end()
        if after == ")":
            return tuple(given), line[start:]


def _check(steps: Sequence[Step]) -> None:
    """Whether every name is given once, and before it is taken."""
    outputs = [step.output for step in steps]
    if twice := [name for name in outputs if outputs.count(name) > 1]:
        raise PacelineError(f"Two steps give {twice[0]}: give each step a name of its own.")
    for step in steps:
        if odd := [name for name in step.uses if name not in outputs]:
            raise PacelineError(f"{step.call} takes {odd[0]}, which no step gives: put a text into quotes.")
    try:
        tuple(TopologicalSorter({step.output: step.uses for step in steps}).static_order())
    except CycleError as error:
        raise PacelineError(f"The steps {' and '.join(dict.fromkeys(error.args[1]))} need one another.") from error
    for number, step in enumerate(steps):
        if late := [name for name in step.uses if name not in outputs[:number]]:
            raise PacelineError(f"{step.call} takes {late[0]} before it is there: move its step up.")


def _few(actions: Iterable[str]) -> str:
    """Some of them, in a sentence."""
    names = list(actions)
    return f" There are {', '.join(names[:12])}{' and others' if len(names) > 12 else ''}."
