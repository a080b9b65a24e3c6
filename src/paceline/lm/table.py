"""A language model that is a table: the next token depends on the last alone, so every probability is known."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.growing import Growing
from paceline.core.state import State


class Table:
    """A first-order Markov chain under `core.state.LM`.

    Args:
        logits: (v, v), of the token after each token.
    """

    def __init__(self, logits: Float[Tensor, "v v"]) -> None:
        self.table = logits
        self.vocab_size = len(logits)

    def initial_state(self, batch: int) -> State:
        """Nothing is remembered but how many tokens there were."""
        return Growing(({"last": torch.zeros(batch, 1)},), 0, of="table")

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None) -> tuple[Float[Tensor, "b t v"], State]:
        """Logits of each next token."""
        state = self.initial_state(len(ids)) if state is None else state
        state.check("table", ids)
        return self.table[ids], Growing(state.layers, state.length + ids.shape[1], of="table")
