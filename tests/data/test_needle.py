"""What the needle promises beyond the contract of the tasks."""

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE
from paceline.data.needle import Needle


@pytest.mark.parametrize("filler", ["random", "markov"])
@pytest.mark.parametrize(("nearest", "farthest"), [(1, None), (5, 5), (20, 60), (126, 126)])
def test_the_pair_lies_at_its_distance_and_is_asked_at_the_end(filler, nearest, farthest):
    task = Needle(length=128, nearest=nearest, farthest=farthest, keys=4, values=6, filler=filler)
    for batch in (task.batch(300, 0, 0), task.evaluation()):
        distances = task.distances(batch.ids)
        assert nearest <= distances.min() and distances.max() <= (farthest or 126)
        for ids, targets, distance in zip(batch.ids, batch.targets, distances.tolist(), strict=True):
            place = 127 - distance
            assert ids[place] == targets[-1] and ids[place - 1] == ids[-1] < 4 <= ids[place] < 10
            assert (ids >= 10).sum() == 125 and (targets[:-1] == IGNORE).all()  # all else is filler
    assert farthest is not None or len(distances.unique()) == 126  # the evaluation asks at every distance


def test_training_distances_are_even():
    task = Needle(length=34)
    counts = torch.bincount(task.distances(task.batch(6_400, 0, 0).ids), minlength=33)[1:]
    assert (counts > 200 - 5 * 14).all() and (counts < 200 + 5 * 14).all()  # 5 sigma


def test_accuracy_by_distance_of_who_remembers_fifty_tokens():
    task = Needle(length=128)
    distances = task.distances(task.evaluation().ids)
    table = task.by_distance((distances <= 50).float(), bins=4)
    assert [row[:2] for row in table] == [(1, 32), (32, 63), (64, 95), (95, 126)]
    assert [row[2] for row in table] == [1, pytest.approx(18.5 / 32, abs=0.03), 0, 0]
    assert sum(row[2] for row in task.by_distance(torch.ones(256), bins=7)) == 7
    with pytest.raises(PacelineError, match="255 scores"):
        task.by_distance(torch.ones(255))


def test_markov_filler_can_be_predicted_and_random_filler_cannot():
    """The best guess of the next token from counts over other sequences."""
    hits = {}
    for filler in ("random", "markov"):
        task = Needle(length=256, filler=filler)
        pairs = task.batch(400, 0, 0).ids.unfold(1, 2, 1).flatten(0, 1)
        counts = torch.bincount(pairs[:, 0] * 32 + pairs[:, 1], minlength=1024).view(32, 32)
        other = task.batch(100, 1, 0).ids.unfold(1, 2, 1).flatten(0, 1)
        filled = other[(other >= 16).all(1)]
        hits[filler] = (counts.argmax(1)[filled[:, 0]] == filled[:, 1]).float().mean().item()
    assert hits["random"] < 0.08 and 0.3 < hits["markov"] < 0.6  # 1/16, and about a third of nine in ten


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"length": 2}, "length=2"),
        ({"nearest": 0}, "nearest=0"),
        ({"nearest": 9, "farthest": 8}, "nearest=9"),
        ({"farthest": 127}, "farthest=127"),
        ({"values": 1}, "values=1"),
        ({"symbols": 0}, "symbols=0"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(options, says):
    with pytest.raises(PacelineError, match=says):
        Needle(**options)
