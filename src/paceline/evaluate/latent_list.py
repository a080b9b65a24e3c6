"""Latent List: what does a Python list hold after many operations, of which few matter?

    >>> a = [5, 2, 8, 2]
    >>> a.append(4)                  relevant: append, insert, pop, remove, sort and reverse, `operations` of them
    >>> print("Do nothing.")         irrelevant, as are pairs that undo each other, other lists and changes of a copy
    >>> print(sum(a))                asked: the list, a part, its length, sum or extremes

Complexity is the number of relevant operations, length that of the whole; neither changes the other. The last operation
changes what is asked, so that whoever reads on nothing but the first line is wrong after one. A written answer
scores 1 where its first line says the same number or list, else 0. Options: what was true at earlier stages of the
list, and neighbours of the right answer. Generating takes time with the length alone.

Departures: no code is public, so names, numbers (0 to 9) and wording are chosen here. The paper gives approximate
credit for lists that are nearly right and asks for views along the way; here an answer is right or not, and asked at
the end.
"""

import ast
import random
from collections.abc import Callable

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.evaluate._contract import Evaluation, Item, Words, fill

PAPERS = (
    Paper(
        title="Michelangelo: Long Context Evaluations Beyond Haystacks via Latent Structure Queries",
        arxiv="2409.12640",
        year=2024,
        says="models that find single facts fail to track a structure that many pieces of a long text build",
    ),
)
NAME = "a"
OTHERS = ("b", "c", "d", "rows", "queue", "items")
OPTIONS = 4
VIEWS: dict[str, Callable[[list[int]], object]] = {
    f"{NAME}[0]": lambda held: held[0],
    f"{NAME}[-1]": lambda held: held[-1],
    f"len({NAME})": len,
    f"min({NAME})": min,
    f"max({NAME})": max,
    f"sum({NAME})": sum,
    f"{NAME}[:2]": lambda held: held[:2],
    NAME: list,
}


class LatentList(Evaluation):
    """Track a list through relevant and irrelevant operations.

    Args:
        operations: relevant ones, the complexity.
        view: what is asked, such as `len(a)` or `a`; one at random where not given.

    Raises:
        PacelineError: no operation, or a view that is not offered.
    """

    title = "Latent List"
    floor = 1 / OPTIONS

    def __init__(self, operations: int = 5, view: str | None = None) -> None:
        if operations < 1:
            raise PacelineError(f"latent_list needs at least one relevant operation, not {operations}.")
        if view is not None and view not in VIEWS:
            raise PacelineError(f"latent_list cannot ask for {view!r}: give one of {', '.join(VIEWS)}.")
        self.operations, self.view = operations, view

    def item(self, words: Words, length: int, seed: int) -> Item:
        """See `Evaluation.item`."""
        draw = random.Random(derive(seed, "latent list", self.operations, self.view or ""))
        view = self.view or draw.choice(list(VIEWS))
        lines, stages = _history(self.operations, draw)
        while VIEWS[view](stages[-1]) == VIEWS[view](stages[-2]):
            lines, stages = _history(self.operations, draw)
        answer, options = _options([repr(VIEWS[view](stage)) for stage in stages], view, draw)
        fill_draw = random.Random(derive(seed, "latent list filler", length))
        prompt = fill(
            words, length, "This is a session of Python.\n\n" + lines[0], lines[1:], f">>> print({view})\n",
            lambda: _idle(fill_draw), fill_draw,
        )  # fmt: skip
        return Item(prompt, f"{answer}\n", tuple(f"{option}\n" for option in options), tuple(lines), {"view": view})

    def score(self, answer: str, item: Item) -> float:
        """1 where the first line that is not blank says the same number or list, else 0."""
        line = next((line.strip() for line in answer.splitlines() if line.strip()), "")
        try:
            return float(ast.literal_eval(line) == ast.literal_eval(item.answer))
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return 0.0


def replay(lines: tuple[str, ...] | list[str]) -> list[int]:
    """The list that a session of `>>> a.operation(...)` lines leaves, other lines ignored; for checks."""
    held: list[int] = []
    for line in "\n".join(lines).splitlines():
        statement = line.removeprefix(">>> ").strip()
        if statement.startswith(f"{NAME} = "):
            held = list(ast.literal_eval(statement.partition(" = ")[2]))
        elif statement.startswith(f"{NAME}."):
            name, _, given = statement.removeprefix(f"{NAME}.").partition("(")
            getattr(held, name)(*ast.literal_eval(f"({given[:-1]},)" if given[:-1] else "()"))
    return held


def _history(operations: int, draw: random.Random) -> tuple[list[str], list[list[int]]]:
    """The lines of a session, and the list after each."""
    held = [draw.randrange(10) for _ in range(4)]
    lines, stages = [f">>> {NAME} = {held}\n"], [held]
    while len(stages) <= operations:
        line, held = _operation(held, draw)
        lines.append(f">>> {line}\n")
        stages.append(held)
    return lines, stages


def _operation(held: list[int], draw: random.Random) -> tuple[str, list[int]]:
    """One that changes the list, and the list after it."""
    while True:
        kind, value, new = (
            draw.choice(("append", "append", "insert", "pop", "remove", "sort", "reverse")),
            0,
            list(held),
        )
        if kind == "append":
            value = draw.randrange(10)
            new.append(value)
            line = f"{NAME}.append({value})"
        elif kind == "insert":
            place, value = draw.randrange(len(new) + 1), draw.randrange(10)
            new.insert(place, value)
            line = f"{NAME}.insert({place}, {value})"
        elif kind == "pop":
            place = draw.randrange(len(new))
            new.pop(place)
            line = f"{NAME}.pop({place})\n{held[place]}"
        elif kind == "remove":
            value = draw.choice(new)
            new.remove(value)
            line = f"{NAME}.remove({value})"
        else:
            getattr(new, kind)()
            line = f"{NAME}.{kind}()"
        if new != held and 3 <= len(new) <= 9:
            return line, new


def _idle(draw: random.Random) -> str:
    """Lines that leave the list as it is."""
    other, value = draw.choice(OTHERS), draw.randrange(10)
    return draw.choice(
        (
            '>>> print("Do nothing.")\nDo nothing.\n',
            f">>> {NAME}.append({value})\n>>> {NAME}.pop()\n{value}\n",
            f">>> {NAME}.reverse()\n>>> {NAME}.reverse()\n",
            f">>> {other} = {[draw.randrange(10) for _ in range(4)]}\n",
            f">>> {other} = {NAME}.copy()\n>>> {other}.append({value})\n",
        )
    )


def _options(stages: list[str], view: str, draw: random.Random) -> tuple[str, list[str]]:
    """The right answer, and as many others as make up OPTIONS, shuffled: earlier stages first, then neighbours."""
    answer = stages[-1]
    wrong = list(dict.fromkeys(stage for stage in stages if stage != answer))
    draw.shuffle(wrong)
    wrong = wrong[: OPTIONS - 1]
    while len(wrong) < OPTIONS - 1:
        value = ast.literal_eval(answer)
        if isinstance(value, list):
            near = list(value)
            near[draw.randrange(len(near))] = draw.randrange(10)
            other = repr(near)
        else:
            other = repr(max(0, value + draw.choice((-3, -2, -1, 1, 2, 3))))
        if other != answer and other not in wrong:
            wrong.append(other)
    options = [answer, *wrong]
    draw.shuffle(options)
    return answer, options


def example() -> list[Evaluation]:
    """Any view, and the whole list."""
    return [LatentList(3), LatentList(1, view="a")]
