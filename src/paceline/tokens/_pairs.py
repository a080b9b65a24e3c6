"""Which token can follow which in what a BPE tokenizer writes.

Within a word that the pre-tokenizer does not split, tokens u v stand beside each other iff no merge crosses the
boundary before both are complete. A merge (a, b) of rank r does where a ends u and b begins v at that time: a is a
piece at the right edge of u's tree, b one at the left edge of v's, and r comes before the merges that use them up.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

NEVER = np.iinfo(np.int64).max


class Pairs:
    """The merges of a BPE.

    Args:
        merges: (left, right, both) as tokens, in the order of their ranks.
        size: tokens.
    """

    def __init__(self, merges: Sequence[tuple[int, int, int]], size: int) -> None:
        self._made: dict[int, tuple[int, int, int]] = {}
        grouped: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for rank, (left, right, both) in enumerate(merges):
            self._made.setdefault(both, (left, right, rank))
            grouped[left].append((right, rank))
        self._after = {left: np.array(found, dtype=np.int64) for left, found in grouped.items()}
        self.ranks = {(left, right): (rank, both) for rank, (left, right, both) in reversed([*enumerate(merges)])}
        owners, begins, until = list[int](), list[int](), list[int]()
        for token in range(size):
            for piece, end in self._edge(token, 0):
                owners.append(token)
                begins.append(piece)
                until.append(end)
        self._owners, self._begins, self._until = np.array(owners), np.array(begins), np.array(until, dtype=np.int64)
        self._rank = np.full(size, NEVER)
        self._size = size

    def _edge(self, token: int, side: int) -> list[tuple[int, int]]:
        """The pieces at one edge of a token's tree, each with the rank of the merge that uses it up."""
        found = [(token, int(NEVER))]
        while (made := self._made.get(found[-1][0])) is not None:
            found.append((made[side], made[2]))
        return found

    def follow(self, token: int) -> np.ndarray:
        """(tokens,) of bool: what can stand after this one within a word."""
        bad = np.zeros(self._size, dtype=bool)
        for piece, until in self._edge(token, 1):
            after = self._after.get(piece)
            if after is None:
                continue
            after = after[after[:, 1] < until]
            self._rank[after[:, 0]] = after[:, 1]
            ranks = self._rank[self._begins]
            bad[self._owners[(ranks <= self._until) & (ranks < NEVER)]] = True
            self._rank[after[:, 0]] = NEVER
        return ~bad

    def encode(self, ids: Sequence[int]) -> list[int]:
        """Merge pieces by rank, the leftmost first."""
        ids = list(ids)
        while len(ids) > 1:
            known = [
                (self.ranks.get(pair, (int(NEVER), 0)), i) for i, pair in enumerate(zip(ids, ids[1:], strict=False))
            ]
            (rank, both), place = min(known, key=lambda entry: (entry[0][0], entry[1]))
            if rank == NEVER:
                break
            ids[place : place + 2] = [both]
        return ids
