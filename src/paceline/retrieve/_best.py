"""The best k of many scores, with ties decided: of equals the one that comes first."""

import math

import numpy as np
from jaxtyping import Float, Int

from paceline.retrieve._contract import Hits


def best(scores: Float[np.ndarray, "q n"], k: int) -> Hits:
    """The k largest of each row, best first."""
    ids = [best_of(row, k) for row in scores]
    return Hits(np.array(ids), np.array([row[found] for row, found in zip(scores, ids, strict=True)]))


def best_of(scores: Float[np.ndarray, " n"], k: int) -> Int[np.ndarray, " k"]:
    """Where the k largest are, best first.

    The k-th largest of a sample is a lower bound of the k-th largest of all, so that only what lies above it must be
    sorted: one pass over the scores, where a partial sort takes several. Of a sample of 4 sqrt(n k) about a quarter of
    sqrt(n k) lie above.
    """
    sample = scores[:: max(1, int(math.sqrt(len(scores) / k) / 4))]
    bound = np.partition(sample, -k)[-k]
    (found,) = (scores > bound).nonzero()
    if len(found) < k:
        found = np.sort(np.append(found, np.flatnonzero(scores == bound)[: k - len(found)]))
    return found[(-scores[found]).argsort(kind="stable")[:k]]


def stacked(parts: list[Hits]) -> Hits:
    """The hits of several lots of queries as one."""
    return Hits(np.concatenate([part.ids for part in parts]), np.concatenate([part.scores for part in parts]))
