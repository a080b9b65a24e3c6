"""A tokenizer of a few tokens and a model of them whose every probability can be written down."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.growing import Growing
from paceline.core.state import State
from paceline.tokens._vocabulary import Vocabulary
from paceline.tokens.exact_bytes import ExactBytes

MERGES = (b"a b", b"ab a", b"b b", b"c ab", b"a a")


def vocabulary(merges: tuple[bytes, ...] = MERGES) -> Vocabulary:
    """All bytes, what the merges make of them, and a token for the end."""
    pieces: list[bytes | None] = [bytes([byte]) for byte in range(256)]
    made = []
    for merge in merges:
        left, right = merge.split(b" ")
        pieces.append(left + right)
        made.append((pieces.index(left), pieces.index(right), len(pieces) - 1))
    return Vocabulary([*pieces, None], made)


class Chain:
    """A first-order Markov chain of tokens under `core.state.LM`.

    Args:
        logits: (v, v), of the token after each.
    """

    def __init__(self, logits: Float[Tensor, "v v"]) -> None:
        self.table, self.vocab_size = logits, len(logits)

    def initial_state(self, batch: int) -> State:
        """It remembers nothing."""
        return Growing(({"nothing": torch.zeros(batch, 1)},), 0, of="chain")

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None) -> tuple[Float[Tensor, "b t v"], State]:
        """Logits of each next token."""
        state = self.initial_state(len(ids)) if state is None else state
        state.check("chain", ids)
        return self.table[ids], Growing(state.layers, state.length + ids.shape[1], of="chain")


def toy(least: float = 0.0, merges: tuple[bytes, ...] = MERGES) -> ExactBytes:
    """The byte view of a chain in which no two tokens are alike; other letters than a, b and c are rare."""
    known = vocabulary(merges)
    size = known.vocab_size
    index = torch.arange(size * size, dtype=torch.float64).view(size, size)
    rare = torch.tensor([0.0 if token >= 256 or token in b"abc" else -6.0 for token in range(size)])
    return ExactBytes(Chain((index * math.sqrt(2)).sin() + rare), known, size - 1, [size - 1], least)
