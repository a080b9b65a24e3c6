"""Texts of unequal lengths, put together so that little of what is read is padding."""

from collections.abc import Iterator, Sequence


def lots(lengths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Rows of like lengths, shortest first, so many that they fit into `room` tokens when padded.

    A row that is longer than that is a lot by itself.
    """
    lot: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if lot and lengths[row] * (len(lot) + 1) > room:
            yield lot
            lot = []
        lot.append(row)
    if lot:
        yield lot
