"""Facts about the task of JRT's claim."""

import torch

from paceline.claims.mixers.jrt import Overlap
from paceline.data._contract import IGNORE


def test_the_answer_is_the_one_element_that_both_sets_have():
    task = Overlap(longer=7, shorter=3, kinds=12)
    batch = task.batch(300, 0, 0)
    assert batch.ids.shape == (300, task.length) and task.length == 12 and task.prompt == 11 and task.floor == 1 / 3
    for ids, targets in zip(batch.ids.tolist(), batch.targets.tolist(), strict=True):
        first, second = set(ids[:7]), set(ids[8:11])
        assert (len(first), len(second), ids[7], ids[11]) == (7, 3, 12, 13)
        assert first & second == {targets[-1]} and targets[:-1] == [IGNORE] * 11
    places = torch.cat([(row == row[8:11].unsqueeze(1)).nonzero()[:, 1] for row in batch.ids])
    assert set(places.tolist()) == {*range(7), 8, 9, 10}  # it may lie anywhere


def test_read_twice_it_is_the_same_question():
    once, twice = Overlap(7, 3, 12), Overlap(7, 3, 12, reads=2)
    one, two = once.evaluation(), twice.evaluation()
    assert torch.equal(two.ids[:, :11], one.ids[:, :11]) and torch.equal(two.ids[:, 11:], one.ids)
    assert torch.equal(two.targets[:, 11:], one.targets) and (two.targets[:, :11] == IGNORE).all()
    assert two.ids.shape[1] == twice.length == 23 and twice.prompt == 22
