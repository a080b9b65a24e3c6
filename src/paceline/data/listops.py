"""ListOps: what is the value of a nested expression of MIN, MAX, MED and SM over digits?

    [MAX 2 9 [MIN 4 7 ] 0 ]  ->  9         [SM 8 7 [MED 1 4 9 2 ] ]  ->  8

Trees are drawn as the Long Range Arena draws them: a place above the last level holds an operator with probability
1/4, else a digit; an operator has 2 to `args` arguments. MED is the median, rounded down between two middle values; SM
is the sum modulo 10. Expressions of `shortest` to `length` tokens are kept and padded on the left, so that the last
token closes the expression, and there its value is asked. All trees of a batch grow together, level by level.

Departures. The Arena keeps the values as they come, and 0 and 9 come most often; here each of the ten values is asked
equally often, so the floor is 1/10 and what scores more has read something. Its root operator alone is worth more:
the best guess from the first token is right in 0.26 of all cases at the default sizes. Spans are 1/4 to 1 of
`length`, as the Arena's 500 to 2,000.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE, Batch, Generated

PAPERS = (
    Source(title="ListOps: A Diagnostic Dataset for Latent Tree Learning", arxiv="1804.06028", year=2018),
    Source(title="Long Range Arena: A Benchmark for Efficient Transformers", arxiv="2011.04006", year=2020),
)

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
"""Tokens 10 to 13, after the digits; then CLOSE and PAD."""
CLOSE, PAD = 14, 15
SHARE = 0.25
"""Probability of an operator above the last level."""
_WAVE = 512  # trees grown at once, at least
_PATIENCE = 200  # waves in a row that may bring nothing


class _Level(NamedTuple):
    """The nodes of one depth in all trees, children of one parent side by side. Arrays of shape (nodes,)."""

    tree: np.ndarray
    parent: np.ndarray
    """Index into the level above."""
    content: np.ndarray
    """A digit, or an operator's token."""
    arity: np.ndarray
    """0 for a digit."""


class ListOps(Generated):
    """Nested operations on lists of digits.

    Args:
        length: tokens of the longest expression, and of the padded sequence.
        shortest: tokens of the shortest expression; a quarter of `length` when not given.
        depth: levels of the tree, the lowest of which holds digits only (the Arena's max_depth).
        args: most arguments of an operator.

    Raises:
        PacelineError: no tree has such a size, or hardly any.
    """

    name = "listops"
    one_answer = True
    title = "ListOps"
    vocab_size = 16

    def __init__(self, length: int = 128, shortest: int | None = None, depth: int = 10, args: int = 10) -> None:
        shortest = max(4, length // 4) if shortest is None else shortest
        if not 1 <= shortest <= length or length < 4 or depth < 2 or args < 2:
            raise PacelineError(
                f"listops: length={length}, shortest={shortest}, depth={depth}, args={args} leave no expression: "
                "the shortest has 4 tokens, 2 levels and 2 arguments."
            )
        self.length, self.shortest, self.depth, self.args = length, shortest, depth, args
        self.sample(1, torch.Generator().manual_seed(0))  # refuses sizes that do not occur

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Values are drawn first, evenly; each takes the next tree that has it."""
        wanted = torch.randint(10, (size,), generator=generator).numpy()
        rows, missing, idle = np.full((size, self.length), PAD), np.ones(size, bool), 0
        while missing.any():
            trees, values = self._wave(max(_WAVE, 8 * size), generator)
            found = 0
            for value in range(10):
                places = np.flatnonzero(missing & (wanted == value))
                fitting = np.flatnonzero(values == value)[: len(places)]
                places = places[: len(fitting)]
                rows[places], missing[places] = trees[fitting], False
                found += len(places)
            idle = 0 if found else idle + 1
            if idle == _PATIENCE:
                raise PacelineError(
                    f"listops: trees of depth={self.depth} and args={self.args} hardly ever have {self.shortest} to "
                    f"{self.length} tokens and every value: give more args, or a smaller shortest."
                )
        ids = torch.from_numpy(rows)
        targets = torch.full_like(ids, IGNORE)
        targets[:, -1] = torch.from_numpy(wanted)
        return Batch(ids, targets)

    def _wave(self, count: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Those of `count` trees that have a fitting size, as padded rows (n, length), and their values (n,)."""
        levels = self._grow(count, generator)
        spans: list[np.ndarray] = []  # from the leaves up: tokens of each subtree
        values: list[np.ndarray] = []
        for depth, level in reversed(list(enumerate(levels))):
            span, value = np.where(level.arity > 0, 2, 1), level.content.copy()
            if depth + 1 < len(levels):
                below, inner = levels[depth + 1], np.flatnonzero(level.arity)
                span += np.bincount(below.parent, spans[-1], len(span)).astype(np.int64)
                value[inner] = evaluate(level.content[inner], level.arity[inner], values[-1])
            spans.append(span)
            values.append(value)
        spans.reverse()
        rows = np.full((len(spans[0]), self.length), PAD)
        starts = self.length - spans[0]
        for depth, level in enumerate(levels):  # from the root down: where each subtree begins
            if depth:
                before = np.cumsum(spans[depth]) - spans[depth]  # tokens of all subtrees to the left, in all trees
                first = np.searchsorted(level.parent, level.parent)  # the eldest sibling
                starts = starts[level.parent] + 1 + before - before[first]
            rows[level.tree, starts] = level.content
            inner = np.flatnonzero(level.arity)
            rows[level.tree[inner], (starts + spans[depth] - 1)[inner]] = CLOSE
        return rows, values[-1]

    def _grow(self, count: int, generator: torch.Generator) -> list[_Level]:
        """Those of `count` trees that have a fitting size, level by level. A tree too long already stops growing."""
        levels: list[_Level] = []
        tree, parent, tokens = np.arange(count), np.zeros(count, np.int64), np.ones(count, np.int64)
        for depth in range(1, self.depth + 1):
            kind, number = torch.rand(2, len(tree), generator=generator, dtype=torch.float64).numpy()
            inner = (kind < SHARE) & (depth < self.depth) | (depth == 1)  # a digit alone would be too short
            arity = np.where(inner, 2 + (number * (self.args - 1)).astype(np.int64), 0)
            operator = 10 + (kind * (4 if depth == 1 else 4 / SHARE)).astype(np.int64)
            levels.append(_Level(tree, parent, np.where(inner, operator, (number * 10).astype(np.int64)), arity))
            tokens += np.bincount(tree, arity + inner, count).astype(np.int64)  # a bracket, and the arguments to come
            parent = np.repeat(np.arange(len(tree)), arity * (tokens[tree] <= self.length))
            tree = tree[parent]
        return _only((tokens >= self.shortest) & (tokens <= self.length), levels)

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Evaluate a nested expression of MIN, MAX, MED and SM (sum modulo 10) over digits, of {self.shortest} to "
            f"{self.length} tokens and up to {self.depth} levels; the value is asked at its last bracket."
        )

    @property
    def floor(self) -> float:
        """A guess among the ten values, which are asked equally often."""
        return 1 / 10

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """As the paper writes it, with a dot for padding."""
        names = [f"{name} " for name in (*"0123456789", *OPERATORS, "]", ".")]
        return [names[i] for i in ids.tolist()]


def _only(keep: np.ndarray, levels: list[_Level]) -> list[_Level]:
    """The levels without the trees for which `keep` is False, numbered anew."""
    kept, above = [], np.arange(len(keep))
    for level in levels:
        mask = keep[level.tree]
        place = np.cumsum(mask) - 1
        tree, parent = (np.cumsum(keep) - 1)[level.tree[mask]], above[level.parent[mask]]
        kept.append(_Level(tree, parent, level.content[mask], level.arity[mask]))
        above = place
    return kept


def evaluate(operators: np.ndarray, arity: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each operator on its arguments.

    Args:
        operators: tokens 10 to 13, shape (n,).
        arity: how many arguments each has, at least 1, shape (n,).
        values: all arguments, those of one operator side by side, shape (arity.sum(),).

    Returns:
        Digits, shape (n,).
    """
    if not len(operators):
        return operators
    starts = np.cumsum(arity) - arity
    owner = np.repeat(np.arange(len(arity)), arity)
    ordered = np.sort(owner * 10 + values) - owner * 10  # ascending within each operator
    median = (ordered[starts + (arity - 1) // 2] + ordered[starts + arity // 2]) // 2
    last = starts + arity - 1
    return np.choose(operators - 10, (ordered[starts], ordered[last], median, np.add.reduceat(values, starts) % 10))


def example() -> ListOps:
    """The smallest instance for the contract tests."""
    return ListOps(length=12, shortest=4, depth=3, args=4)
