"""The covers of one text, by where their last token begins: what a byte view remembers.

A node is a token sequence T that writes x_1..x_j, the model's distribution q(. | T) over the tokens that may follow,
and the range of those that begin with x_j+1..x_n: the covers of x that extend T by one token. So

    P(x b) = sum over nodes of P(T) sum of q(t | T) over the tokens t that begin with x_j+1..x_n b
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int
from torch import Tensor

from paceline.core.state import State


@dataclass(frozen=True)
class Node:
    """Token sequences that extend one.

    Attributes:
        state: the model's, after it.
        weight: log P(T), up to what all nodes of the text share.
        last: its last two tokens.
        q: (sorted tokens,) probabilities of the next token, sorted by its bytes.
        end: probability that the text ends.
        low, high, depth: the sorted tokens that begin with the `depth` bytes written since.
    """

    state: State
    weight: float
    last: tuple[int, int]
    q: np.ndarray
    end: float
    low: int
    high: int
    depth: int = 0


@dataclass(frozen=True)
class Row:
    """One text.

    Attributes:
        nodes: where its covers' last tokens begin.
        text: its bytes since it began.
        calls: of the model so far.
    """

    nodes: tuple[Node, ...]
    text: bytes
    calls: int

    def forked(self) -> "Row":
        """With states of its own."""
        return replace(self, nodes=tuple(replace(node, state=node.state.fork()) for node in self.nodes))


@dataclass(frozen=True)
class ByteState(State):
    """The covers of several texts. States of earlier bytes are whole states, so taking back is going to one."""

    rows: tuple[Row, ...] = ()
    past: tuple["ByteState", ...] = ()
    """As many earlier states as are kept, oldest first."""

    @property
    def nbytes(self) -> int:
        """Of the models' states and the distributions; what nodes share counts once."""
        nodes = [node for state in (self, *self.past) for row in state.rows for node in row.nodes]
        states = {id(node.state): node.state.nbytes for node in nodes}
        return sum(states.values()) + sum({id(node.q): node.q.nbytes for node in nodes}.values())

    @property
    def batch(self) -> int:
        """Texts."""
        return len(self.rows)

    @property
    def kept(self) -> int:
        """How many bytes can be taken back."""
        return len(self.past)

    @property
    def calls(self) -> int:
        """Of the model, for all texts."""
        return sum(row.calls for row in self.rows)

    def keeping(self, tokens: int) -> "ByteState":
        """See `State.keeping`."""
        return replace(self, keep=tokens, past=self.past[-tokens:] if tokens else ())

    def rewind(self, tokens: int) -> "ByteState":
        """See `State.rewind`."""
        if not 0 < tokens <= len(self.past):
            super().rewind(tokens)  # which refuses, or has nothing to do
            return self
        return replace(self.past[-tokens], keep=self.keep, past=self.past[:-tokens])

    def fork(self) -> "ByteState":
        """See `State.fork`."""
        past = tuple(state.fork() for state in self.past)
        return replace(self, rows=tuple(row.forked() for row in self.rows), past=past)

    def select(self, rows: Int[Tensor, " k"]) -> "ByteState":
        """See `State.select`."""
        chosen = rows.tolist()
        past = tuple(state.select(rows) for state in self.past)
        return replace(self, rows=tuple(self.rows[row] for row in chosen), past=past)

    def followed(self, rows: Sequence[Row]) -> "ByteState":
        """The state one byte later."""
        past = (*self.past, replace(self, past=()))[-self.keep :] if self.keep else ()
        return ByteState((), self.length + 1, of=self.of, keep=self.keep, rows=tuple(rows), past=past)
