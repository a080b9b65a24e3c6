"""Any tokenised language model as one of bytes, exactly: the probability of a text is that of all its covers.

    P(x_1..x_n)     = sum of P(t_1..t_k) over the covers: valid tokens that write x_1..x_n, of which only the last may
                      write on beyond it
    P(b | x_1..x_n) = P(x_1..x_n b) / P(x_1..x_n)

Valid is what the tokenizer itself would write: to other tokens the model is not let go, q(t | T) is 0 for them and
normalised over the rest. Covers are kept by where their last token begins (`_rows.py`), so a byte costs a segment sum
over the sorted tokens for each of a few nodes, and one step of the model for each new node: at most one a byte, since
one sequence of valid tokens writes a text. `least` leaves out tokens that end in the middle of what nearly surely is a
longer one: fewer steps, and a text that goes on as they would is told to be all but impossible, before all its covers
are looked for again. Memory: what the model remembers, and a distribution over its tokens for each node.

Departures: the authors validate a token by encoding what it would write anew; here merges and the pre-tokenizer are
asked about pairs (`_pairs.py`, `_words.py`), once for each kind; `valid=False` lets any token follow.
A prompt is cut where no token can cross, which the vocabulary shows, and not at its last space; what stands before is
encoded with what follows, for a pre-tokenizer looks ahead. No byte gets less than
1e-12, so that nothing is impossible; a text without covers goes on from what the tokenizer makes of it.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.state import LM, State
from paceline.tokens._contract import END, ByteView
from paceline.tokens._rows import ByteState, Node, Row
from paceline.tokens._vocabulary import Vocabulary

PAPERS = (
    Paper(
        title="Exact Byte-Level Probabilities from Tokenized Language Models for FIM-Tasks and Model Ensembles",
        arxiv="2410.09303",
        year=2024,
        says="Byte probabilities summed over cover encodings free prompts that end in the middle of a token from bias.",
    ),
)
FLOOR = 1e-12
"""Probability of a byte at least."""
LEAST = 1e-3
"""Share below which covers are not followed where there would be too many."""


class ExactBytes(ByteView):
    """A language model over bytes.

    Args:
        lm: of tokens.
        tokenizer: its own, a fast one of transformers, or a `Vocabulary`. Default: the model's `tokenizer`.
        start: the token that stands before every text. Default: the tokenizer's, or the first of `ends`.
        ends: tokens that end a text. Default: the tokenizer's.
        least: share of a text's probability below which tokens that end where it ends are not followed; 0 follows all.
            Default: 0, and 1e-3 where any token may follow, for then every way to cut a text into tokens is a cover.
        valid: whether only tokens count that the tokenizer would write; False is the authors' fast mode, in which the
            model may go on with any token.

    Raises:
        PacelineError: a tokenizer whose bytes are not known, one with more tokens than the model, or no start.
    """

    def __init__(
        self, lm: LM, tokenizer: Any = None, start: int | None = None, ends: Sequence[int] | None = None,
        least: float | None = None, valid: bool = True,
    ) -> None:  # fmt: skip
        tokenizer = getattr(lm, "tokenizer", None) if tokenizer is None else tokenizer
        if tokenizer is None:
            raise PacelineError("ExactBytes needs the model's tokenizer: give it.")
        least = (0.0 if valid else LEAST) if least is None else least
        if not 0 <= least < 1:
            raise PacelineError(f"least={least} is no share: give 0 for exact sums, or a small number below 1.")
        self.vocabulary = tokenizer if isinstance(tokenizer, Vocabulary) else Vocabulary.of(tokenizer)
        if self.vocabulary.vocab_size > lm.vocab_size:
            raise PacelineError(
                f"The tokenizer has {self.vocabulary.vocab_size:,} tokens and the model {lm.vocab_size:,}: "
                "give the model's own."
            )
        known = getattr(tokenizer, "eos_token_id", None)
        self.ends = tuple(ends) if ends is not None else () if known is None else (int(known),)
        first = getattr(tokenizer, "bos_token_id", None) if start is None else start
        first = self.ends[0] if first is None and self.ends else first
        if first is None:
            raise PacelineError("The model must read something before the first byte: give start, a token.")
        self.start, self.least, self.valid = int(first), least, valid
        self.lm = lm
        self._kind = f"bytes of {lm.initial_state(1).of}"

    def initial_state(self, batch: int) -> ByteState:
        """See `ByteView.initial_state`. The model reads nothing yet."""
        return ByteState((), 0, of=self._kind, rows=(Row((), b"", 0),) * batch)

    @torch.no_grad()
    def __call__(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t v"], State]:
        """See `ByteView.__call__`."""
        state = self.initial_state(len(ids)) if state is None else state
        if state.of != self._kind or not isinstance(state, ByteState):
            raise PacelineError("This state is another model's: give this model its own, or None to begin.")
        if state.batch != len(ids):
            raise PacelineError(f"This state is of {state.batch} texts and cannot go on with {len(ids)}: select some.")
        out = []
        for column in ids.T.tolist():
            rows = [self._step(row, symbol) for row, symbol in zip(state.rows, column, strict=True)]
            out.append(torch.stack([self.logits_of(row) for row in rows]))
            state = state.followed(rows)
        return torch.stack(out, dim=1) if out else torch.empty(len(ids), 0, self.vocab_size), state

    @torch.no_grad()
    def first(self) -> Float[Tensor, " v"]:
        """Log-probabilities of a text's first byte."""
        return self.logits_of(self._begin())

    @torch.no_grad()
    def prompt(self, data: bytes) -> tuple[Float[Tensor, " v"], ByteState]:
        """See `ByteView.prompt`: the model reads tokens up to where no token can cross, then bytes."""
        row = self._covered(self.vocabulary.prefix + data)
        return self.logits_of(row), replace(self.initial_state(1), length=len(data), rows=(row,))

    def _covered(self, text: bytes, calls: int = 0) -> Row:
        """All covers of a text that begins with the tokenizer's prefix."""
        cut, ids = self._cut(text)
        if cut > len(self.vocabulary.prefix):
            row = self._after(ids, text[:cut], calls)
        else:
            row = self._begin()
            row, cut = replace(row, calls=row.calls + calls), len(row.text)
        for symbol in text[cut:]:
            row = self._step(row, symbol)
        return row

    def _cut(self, text: bytes) -> tuple[int, list[int]]:
        """The last place before the end that no token crosses, and the tokens before it, which all covers share."""
        known = self.vocabulary
        ids = known.encode(text)
        cut = len(text)
        while ids:
            cut -= len(known.pieces[ids.pop()] or b"")
            if not any(known.begins(text[at : cut + 1]) for at in range(max(0, cut + 1 - known.longest), cut)):
                break
        return cut, ids

    def _begin(self) -> Row:
        row = Row((self._read(self.lm.initial_state(1), [self.start], 0.0, -1),), b"", 1)
        for symbol in self.vocabulary.prefix:
            row = self._step(row, symbol)
        return row

    def _after(self, ids: Sequence[int], text: bytes, calls: int) -> Row:
        """What follows from these tokens of a text alone."""
        return Row((self._read(self.lm.initial_state(1), [self.start, *ids], 0.0, -1),), text, calls + 1)

    def _lost(self, text: bytes, calls: int) -> Row:
        """A text none of whose covers was followed: all of them, else what the tokenizer makes of it."""
        if self.valid and self.least:
            exact = copy.copy(self)
            exact.least = 0.0
            return exact._covered(text, calls)
        return self._after(self.vocabulary.encode(text), text, calls)

    def _read(self, state: State, tokens: Sequence[int], weight: float, before: int) -> Node:
        """The node of what `state` has read and these tokens."""
        logits, state = self.lm(torch.tensor([list(tokens)]), state)
        scores = logits[0, -1].double().cpu().numpy()
        last = (tokens[-2] if len(tokens) > 1 else before, tokens[-1])
        last = cast(tuple[int, int], tuple(-1 if token == self.start else token for token in last))
        known = self.vocabulary
        q = np.exp(scores - scores.max())
        ends = float(q[list(self.ends)].sum())
        q = q[known.order] * (known.allowed(*last) if self.valid else 1.0)
        total = q.sum() + ends
        total = total or 1.0  # nothing may follow: a node without covers
        return Node(state, weight, last, q / total, ends / total, 0, len(q))

    def _sums(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """(256,) the mass of its tokens by their next byte, and the (258,) places where each begins."""
        places = self.vocabulary.children(node.low, node.high, node.depth)
        totals = np.zeros(256)
        filled = np.flatnonzero(places[2:] > places[1:-1])
        if len(filled):
            totals[filled] = np.add.reduceat(node.q[: places[-1]], places[1:-1][filled])
        return totals, places

    def _masses(self, row: Row) -> np.ndarray:
        """(257,) in proportion to the probabilities of each next symbol."""
        masses = np.zeros(self.vocab_size)
        top = max((node.weight for node in row.nodes), default=0.0)
        for node in row.nodes:
            share = math.exp(node.weight - top)
            masses[:END] += share * self._sums(node)[0]
            masses[END] += share * node.end if node.depth == 0 else 0.0
        return masses

    def logits_of(self, row: Row) -> Float[Tensor, " v"]:
        """Log-probabilities of the next symbol, from what is remembered of a text."""
        masses = self._masses(row)
        total = masses.sum()
        shares = masses / total if total else np.full(self.vocab_size, 1 / self.vocab_size)
        return torch.from_numpy(np.log(np.maximum(shares, FLOOR)))

    def _step(self, row: Row, symbol: int) -> Row:
        """The covers of the text and one more symbol."""
        if not row.nodes:
            row = self._begin()
        if not 0 <= symbol < END:
            raise PacelineError(f"Symbol {symbol} is no byte: after the end of a text begin anew with no state.")
        text = row.text + bytes([symbol])
        nodes, found = list[Node](), list[tuple[Node, int, float]]()
        for node in row.nodes:
            sums, places = self._sums(node)
            low, high = int(places[1 + symbol]), int(places[2 + symbol])
            if sums[symbol] <= 0:
                continue
            inside = replace(node, low=low, high=high, depth=node.depth + 1)
            ended = int(self.vocabulary.children(low, high, inside.depth)[1])
            for place in range(low, ended):
                if node.q[place] > 0:
                    found.append((node, place, node.weight + math.log(node.q[place])))
            if ended < high and node.q[ended:high].sum() > 0:
                nodes.append(replace(inside, low=ended))
        if not nodes and not found:
            return self._lost(text, row.calls)
        bound = -math.inf
        if self.least and nodes:
            open_ = [node.weight + math.log(node.q[node.low : node.high].sum()) for node in nodes]
            bound = float(np.logaddexp.reduce([*open_, *(weight for *_, weight in found)])) + math.log(self.least)
        calls = row.calls
        for node, place, weight in found:
            if weight > bound:
                token = int(self.vocabulary.order[place])
                nodes.append(self._read(node.state, [token], weight, node.last[1]))
                calls += 1
        top = max(node.weight for node in nodes)
        return Row(tuple(replace(node, weight=node.weight - top) for node in nodes), text, calls)


def example() -> list[ExactBytes]:
    """Toys: with every token followed, and with rare ones left out."""
    from paceline.tokens._toy import toy

    return [toy(least) for least in (0.0, 1e-3)]
