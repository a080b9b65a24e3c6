"""Rows of unequal lengths, put into lots."""

import pytest

from paceline.lm.padded import lots


def test_lots_hold_every_row_once_and_fit() -> None:
    lengths = [3, 9, 1, 4, 4, 2, 12]
    found = list(lots(lengths, 8))
    assert sorted(row for lot in found for row in lot) == list(range(len(lengths)))
    assert all(len(lot) == 1 or max(lengths[i] for i in lot) * len(lot) <= 8 for lot in found)
    assert [len(lot) for lot in found] == [2, 2, 1, 1, 1]  # 1 and 2; 3 and 4; 4 again; 9 and 12 are too long for any


@pytest.mark.parametrize("lengths", [[], [5]])
def test_few_rows(lengths: list[int]) -> None:
    assert list(lots(lengths, 4)) == [[i] for i in range(len(lengths))]
