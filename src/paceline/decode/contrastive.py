"""Contrastive search: a likely token whose hidden state is unlike those before it, so that a text does not repeat.

    x_t = argmax over the k likeliest v of  (1 - alpha) p(v | x_<t) - alpha max_{j < t} cos(h_v, h_{x_j})

with h the hidden state that the head reads of a token, prompt included. Deterministic. Cost: each step reads the k
candidates side by side, as k rows of one call, and compares each with all hidden states before, which are kept: n d
numbers for n tokens besides the model's own state.
"""

from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.growing import Growing, append
from paceline.core.joint import Joint
from paceline.core.state import LM, State
from paceline.decode._contract import Run, Strategy
from paceline.decode._hidden import Seen

PAPERS = (Source(title="A Contrastive Framework for Neural Text Generation", arxiv="2202.06417", year=2022),)


class Contrastive(Strategy):
    """Contrastive search.

    Args:
        k: candidates of each step.
        alpha: how much likeness to what came before counts, 0 to 1; 0 is greedy.

    Raises:
        PacelineError: a number outside its range; later, a model that shows no hidden states.
    """

    keep = 1

    def __init__(self, k: int = 4, alpha: float = 0.6) -> None:
        if k < 1 or not 0 <= alpha <= 1:
            raise PacelineError(f"contrastive: k must be at least 1 and alpha from 0 to 1, not {k} and {alpha}.")
        self.k, self.alpha = k, alpha

    def prepare(self, lm: LM) -> LM:
        """The model, whose state keeps the hidden states too."""
        return Remembering(lm)

    def run(self, run: Run) -> Iterator[list[int]]:
        """See `Strategy.run`."""
        while True:
            likely = run.logits.double().softmax(-1).topk(min(self.k, run.lm.vocab_size))
            rows = torch.zeros(len(likely.indices), dtype=torch.long)
            logits, after = run.forward(likely.indices.unsqueeze(1), run.state.select(rows))
            best = scores(likely.values, hidden_states(after), self.alpha).argmax()
            yield [int(likely.indices[best])]
            run.state, run.logits = after.select(best.unsqueeze(0)), logits[best, -1]


def scores(p: Float[Tensor, " k"], hidden: Float[Tensor, "k n d"], alpha: float) -> Float[Tensor, " k"]:
    """Of k candidates: their probabilities, and hidden states, each the last behind those of the text."""
    unit = functional.normalize(hidden.double(), dim=-1)
    likeness = (unit[:, :-1] @ unit[:, -1:].transpose(1, 2)).squeeze(-1)
    return (1 - alpha) * p - alpha * likeness.amax(-1)


class Remembering:
    """A model that keeps the hidden states that its head read, itself a `core.state.LM`.

    Args:
        lm: the model.

    Raises:
        PacelineError: it shows none.
    """

    def __init__(self, lm: LM) -> None:
        self.lm, self.vocab_size = lm, lm.vocab_size
        self.longest: int | None = getattr(lm, "longest", None)
        self._seen = Seen(lm, "contrastive")
        self._kind = f"remembering {lm.initial_state(1).of}"

    def initial_state(self, batch: int) -> State:
        """The empty past of `batch` sequences."""
        none = self._seen.matrix.new_empty(batch, 1, 0, self._seen.matrix.shape[1])
        return Joint.of_parts((self.lm.initial_state(batch), Growing(({"hidden": none},), 0)), self._kind)

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t v"], State]:
        """Logits of each next token, and the state after them."""
        state = self.initial_state(len(ids)) if state is None else state
        state.check(self._kind, ids)
        own, kept = cast(Joint, state).parts
        logits, layers, own = self._seen(ids, own)
        hidden = append(kept.layers[0]["hidden"], layers[-1].detach().unsqueeze(1))
        return logits, Joint.of_parts((own, Growing(({"hidden": hidden},), kept.length + ids.shape[1])), self._kind)


def hidden_states(state: State) -> Float[Tensor, "b n d"]:
    """Of all tokens that led to a state of a `Remembering`."""
    return cast(Joint, state).parts[1].layers[0]["hidden"].squeeze(1)


def example(lm: LM) -> list[Strategy]:
    """As in the paper, and with fewer candidates."""
    return [Contrastive(), Contrastive(k=2, alpha=0.9)]


def greedy_limit(lm: LM) -> list[Strategy]:
    """One candidate, and likeness that does not count."""
    return [Contrastive(k=1), Contrastive(alpha=0.0)]
