"""The best k of many scores, with ties decided: of equals the one that comes first."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from paceline.retrieve._contract import Hits


def best(scores: Float[Tensor, "q n"], k: int) -> Hits:
    """The k largest of each row, best first.

    `topk` keeps any of equal scores, which may differ from call to call; here a row with a tie at its edge is cut anew.
    """
    found, ids = scores.topk(k, dim=1)
    edge = found[:, -1:]
    tied = (scores >= edge).sum(1) > k
    for row in tied.nonzero().flatten().tolist():
        above = (scores[row] > edge[row]).nonzero().flatten()
        level = (scores[row] == edge[row]).nonzero().flatten()[: k - len(above)]
        ids[row] = torch.cat((above, level))
    ids = ids.sort(dim=1).values
    values = scores.gather(1, ids)
    order = values.argsort(dim=1, descending=True, stable=True)
    return Hits(ids.gather(1, order).numpy(), values.gather(1, order).numpy())


def stacked(parts: list[Hits]) -> Hits:
    """The hits of several lots of queries as one."""
    return Hits(np.concatenate([part.ids for part in parts]), np.concatenate([part.scores for part in parts]))
