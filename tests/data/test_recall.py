"""What recall promises when it is read twice (JRT-Prompt): nothing is new but the order."""

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE, Batch
from paceline.data._twice import read_twice
from paceline.data.recall import Recall

SIZES = {"pairs": 3, "keys": 5, "values": 4, "stretch": 7, "queries": 6}
FIRST = [1, 8, 0, 5, 3, 6, 9, 9, 9, 9, 9, 9, 9, 1, 1, 0, 3, 0, 0]


def test_the_second_reading_is_the_first_and_only_it_is_asked():
    once, twice = Recall(**SIZES), Recall(**SIZES, reads=2)
    assert (once.length, twice.length, twice.prompt) == (19, 38, 32) and once.prompt == 13
    for one, two in ((once.batch(50, 3, 4), twice.batch(50, 3, 4)), (once.evaluation(), twice.evaluation())):
        assert torch.equal(two.ids, one.ids.repeat(1, 2))
        assert torch.equal(two.targets[:, 19:], one.targets) and (two.targets[:, :19] == IGNORE).all()


def test_reading_once_is_what_it_was():
    """The first training sequence of seed 0, as it was before the argument came."""
    batch = Recall(**SIZES).batch(1, 0, 0)
    assert batch.ids.tolist() == [FIRST] and Recall(**SIZES, reads=1).describe() == Recall(**SIZES).describe()
    assert Recall(**SIZES, reads=2).describe().endswith(", and all is read twice.")


def test_a_part_may_be_repeated_alone():
    ids = torch.arange(10).view(2, 5)
    batch = read_twice(Batch(ids, ids + 1), 3)
    assert batch.ids.tolist() == [[0, 1, 2, 0, 1, 2, 3, 4], [5, 6, 7, 5, 6, 7, 8, 9]]
    assert batch.targets.tolist() == [[IGNORE] * 3 + [1, 2, 3, 4, 5], [IGNORE] * 3 + [6, 7, 8, 9, 10]]
    assert torch.equal(read_twice(batch, 0).ids, batch.ids)


@pytest.mark.parametrize("reads", [0, 3, -1])
def test_other_numbers_of_reads_are_refused(reads):
    with pytest.raises(PacelineError, match=f"reads={reads} is not offered"):
        Recall(reads=reads)
