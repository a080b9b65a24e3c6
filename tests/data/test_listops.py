"""What ListOps promises beyond the contract of the tasks."""

import statistics

import numpy as np
import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE
from paceline.data.listops import CLOSE, PAD, ListOps, evaluate

MIN, MAX, MED, SM = range(10, 14)


def solve(tokens, depth=1):
    """Value and levels of an expression, by recursion, from Python's own functions; it must use up the tokens."""
    token = tokens.pop(0)
    if token < 10:
        return token, depth
    arguments, levels = [], []
    while tokens[0] != CLOSE:
        value, level = solve(tokens, depth + 1)
        arguments.append(value)
        levels.append(level)
    tokens.pop(0)
    assert len(arguments) >= 2
    reduce = {MIN: min, MAX: max, MED: lambda v: int(statistics.median(v)), SM: lambda v: sum(v) % 10}[token]
    return reduce(arguments), max(levels)


def expressions(batch):
    for ids, targets in zip(batch.ids.tolist(), batch.targets.tolist(), strict=True):
        yield [token for token in ids if token != PAD], targets[-1]


@pytest.mark.parametrize(
    ("operator", "arguments", "value"),
    [
        (MIN, [4, 7], 4),
        (MAX, [2, 9, 4, 0], 9),
        (MED, [1, 4, 9], 4),
        (MED, [9, 1, 4, 2], 3),
        (MED, [9, 2], 5),  # 5.5, rounded down
        (MED, [0, 1], 0),
        (SM, [8, 7, 3], 8),
        (SM, [5, 5], 0),
    ],
)
def test_operators_by_hand(operator, arguments, value):
    assert evaluate(np.array([operator]), np.array([len(arguments)]), np.array(arguments)).tolist() == [value]
    assert value == solve([operator, *arguments, CLOSE])[0]


def test_operators_side_by_side_keep_their_own_arguments():
    operators, arity = np.array([MED, SM, MAX, MIN]), np.array([3, 2, 4, 2])
    assert evaluate(operators, arity, np.array([9, 0, 5, 6, 7, 1, 3, 2, 0, 8, 9])).tolist() == [5, 3, 3, 8]


@pytest.mark.parametrize(
    "options", [{}, {"length": 40, "depth": 3, "args": 5}, {"length": 500}, {"length": 20, "shortest": 20}]
)
def test_every_answer_is_the_value_and_sizes_are_kept(options):
    task = ListOps(**options)
    lengths, levels = set(), set()
    for tokens, answer in expressions(task.batch(200, 0, 0)):
        lengths.add(len(tokens))
        rest = list(tokens)
        value, depth = solve(rest)
        assert value == answer and not rest
        levels.add(depth)
    assert task.shortest <= min(lengths) and max(lengths) <= task.length and min(levels) >= 2
    assert max(levels) <= task.depth and (max(levels) == 3 or task.depth == 10)
    assert task.shortest == task.length or len(lengths) > 10


def test_it_is_padded_on_the_left_and_asked_at_the_last_bracket():
    data = ListOps().batch(50, 0, 0)
    assert (data.targets[:, :-1] == IGNORE).all() and (data.ids[:, -1] == CLOSE).all()
    blank = data.ids == PAD
    assert blank.any() and torch.equal(blank, blank.cummin(1).values)
    shown = ListOps().show(torch.tensor([PAD, MAX, 2, SM, 3, 9, CLOSE, CLOSE]))
    assert "".join(shown) == ". [MAX 2 [SM 3 9 ] ] "


def test_values_and_operators_are_balanced_and_the_root_says_little():
    data = ListOps().batch(4_000, 0, 0)
    counts = torch.bincount(data.targets[:, -1], minlength=10)
    assert (counts > 400 - 5 * 19).all() and (counts < 400 + 5 * 19).all()  # 5 sigma
    root = data.ids.gather(1, (data.ids != PAD).int().argmax(1, keepdim=True)).squeeze(1) - 10
    table = torch.bincount(root * 10 + data.targets[:, -1], minlength=40).view(4, 10)
    assert (table.sum(1) > 700).all()
    best = table.max(1).values.sum().item() / 4_000
    assert best == pytest.approx(0.26, abs=0.03)  # as the docstring says


def test_natural_values_come_as_in_the_arena():
    """Before balance: shares of values among 6,675 trees of 32 to 128 tokens from the Arena's own generator."""
    arena = [0.153, 0.094, 0.083, 0.085, 0.094, 0.084, 0.080, 0.079, 0.094, 0.155]
    rows, values = ListOps()._wave(60_000, torch.Generator().manual_seed(5))
    shares = np.bincount(values, minlength=10) / len(values)
    assert len(values) > 3_000 and np.abs(shares - arena).max() < 0.03  # 4 sigma of the difference: 0.028
    assert np.median((rows != PAD).sum(1)) == pytest.approx(56, abs=3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"length": 3}, "length=3"),
        ({"shortest": 129}, "shortest=129"),
        ({"depth": 1}, "depth=1"),
        ({"args": 1}, "args=1"),
        ({"length": 500, "depth": 2}, "hardly ever"),
    ],
)
def test_impossible_trees_are_refused(options, says):
    with pytest.raises(PacelineError, match=says):
        ListOps(**options)
