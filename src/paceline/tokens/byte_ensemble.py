"""Models of different tokenizers as one: the mean of what they say of the next byte.

    p(b | x) = sum of w_i p_i(b | x) over the models

Each is a model of bytes (`exact_bytes.py`), so vocabularies need not agree. Cost: that of all. The authors take equal
weights.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.joint import Joint
from paceline.core.state import State
from paceline.tokens._contract import ByteView

PAPERS = (
    Paper(
        title="Exact Byte-Level Probabilities from Tokenized Language Models for FIM-Tasks and Model Ensembles",
        arxiv="2410.09303",
        year=2024,
        says="Averaged over bytes, models of different vocabularies do better together than alone.",
    ),
)
KIND = "byte ensemble"


class ByteEnsemble(ByteView):
    """The mean of several models of bytes.

    Args:
        members: at least one.
        weights: of each. Default: equal.

    Raises:
        PacelineError: no member, or weights that are not as many, below 0 or all 0.
    """

    def __init__(self, members: Sequence[ByteView], weights: Sequence[float] | None = None) -> None:
        given = [1.0] * len(members) if weights is None else list(weights)
        if not members or len(given) != len(members) or min(given) < 0 or not sum(given):
            raise PacelineError(f"An ensemble of {len(members)} models cannot have the weights {given}: give one each.")
        self.members = tuple(members)
        self.weights = torch.tensor(given, dtype=torch.float64) / sum(given)

    def initial_state(self, batch: int) -> Joint:
        """See `ByteView.initial_state`."""
        return Joint.of_parts(tuple(member.initial_state(batch) for member in self.members), KIND)

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t v"], State]:
        """See `ByteView.__call__`."""
        state = self.initial_state(len(ids)) if state is None else state
        state.check(KIND, ids)
        said, after = list[Tensor](), list[State]()
        for member, part in zip(self.members, cast(Joint, state).parts, strict=True):
            logits, part = member(ids, part)
            said.append(logits)
            after.append(part)
        return self._mean(said), Joint.of_parts(tuple(after), KIND)

    def prompt(self, data: bytes) -> tuple[Float[Tensor, " v"], State]:
        """See `ByteView.prompt`."""
        said, after = zip(*(member.prompt(data) for member in self.members), strict=True)
        return self._mean(said), Joint.of_parts(after, KIND)

    def _mean(self, said: Sequence[Tensor]) -> Tensor:
        weights = self.weights.log().view(-1, *[1] * said[0].ndim)
        return (torch.stack([logits.double() for logits in said]).log_softmax(-1) + weights).logsumexp(0)


def example() -> list[ByteEnsemble]:
    """Two toys of different vocabularies."""
    from paceline.tokens._toy import MERGES, toy

    return [ByteEnsemble([toy(), toy(merges=MERGES[:2])], [0.7, 0.3])]
