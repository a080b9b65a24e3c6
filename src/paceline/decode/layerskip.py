"""LayerSkip: the first layers of a model, with its own head, draft for the whole of it.

    h_i = layers_1..E(x_i),  x_{i+1} ~ softmax(head(h_i))     for i = 1..guesses: the draft
    p_i = softmax(head(layers_E+1..L(h_i)))                   for all i at once: the verification

with x_1 the last token. Acceptance as in `_speculate.py`. Nothing is computed twice: the verification goes on from the
h_i of the draft, and what the first layers remember of the guesses stays, up to the first refused one. One state, no
second model. A guess costs E / L of a call, counted among the helpers' calls; a verification counts as a call.
Models become good at it by training (`lm/early_exit.py`); others may guess too poorly for it to pay, then it pauses.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.layered import Layered, Memories, after, is_layered, start_of
from paceline.core.state import LM
from paceline.decode._choice import Choice
from paceline.decode._contract import Run, Strategy, check_finite
from paceline.decode._speculate import Draft, Speculation, at_least_one, drafted, guess

PAPERS = (
    Paper(
        title="LayerSkip: Enabling Early Exit Inference and Self-Speculative Decoding",
        arxiv="2404.16710",
        year=2024,
        says="Training with layer dropout that grows with depth and an early exit loss makes early layers predict "
        "well, and drafting with them while the remaining layers verify gives the same text in less time.",
    ),
)


class LayerSkip(Speculation):
    """Self-speculation by early exit.

    Args:
        exit_layer: layers that draft, E: at least 1, and fewer than the model has.
        guesses: tokens of a draft.
        temperature: of the choice; 0 is greedy. So are `top_k` and `top_p` of the choice.
        patience: refused drafts in a row before a pause.

    Raises:
        PacelineError: a number below 1, or a choice outside its range; later, a model whose layers cannot be run
            apart, or that has not more than `exit_layer`.
    """

    def __init__(
        self, exit_layer: int, guesses: int = 4, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0,
        patience: int = 2,
    ) -> None:  # fmt: skip
        super().__init__(Choice(temperature, top_k, top_p), patience)
        at_least_one(exit_layer=exit_layer, guesses=guesses)
        self.exit_layer, self.guesses = exit_layer, guesses
        self.keep = guesses + 1

    def prepare(self, lm: LM) -> LM:
        """See `Strategy.prepare`."""
        if not is_layered(lm):
            raise PacelineError(
                f"The layers of a {type(lm).__name__} cannot be run apart: give layerskip a Llama-like model, or one "
                "of Paceline's under lm.layers.layered."
            )
        if self.exit_layer >= lm.depth:
            raise PacelineError(
                f"The model has {lm.depth} layers: exit_layer must be below that, not {self.exit_layer}."
            )
        return lm

    @torch.no_grad()
    def draft(self, run: Run, room: int) -> Draft:
        """See `Speculation.draft`."""
        lm, last = cast(Layered, run.lm), torch.tensor([run.ids[-1:]])
        self._read = run.state.to_read(last)
        self._start = start_of(run.state, self._read, last)
        self._hidden: list[Tensor] = []
        self._early: Memories = run.state.layers[: self.exit_layer]
        made = [guess(lm.head(self._first(run, self._read))[0, -1], self.choice, run.draws)]
        while len(made) < min(self.guesses, room):
            token = torch.tensor([[made[-1][0]]])
            made.append(guess(lm.head(self._first(run, token))[0, -1], self.choice, run.draws))
        run.counts.helper_calls += len(made)
        return drafted(made)

    @torch.no_grad()
    def read(self, run: Run, draft: Draft) -> Float[Tensor, "t v"]:
        """See `Speculation.read`: the other layers, and all of them for the last guess."""
        if not draft.tokens:
            return super().read(run, draft)
        lm, asked = cast(Layered, run.lm), len(draft.tokens) + 1
        self._first(run, torch.tensor([draft.tokens[-1:]]))
        late = run.state.layers[self.exit_layer : lm.depth]
        x, late = lm.through(torch.cat(self._hidden, dim=1), late, self._start, first=self.exit_layer)
        logits = lm.head(x[:, -asked:])
        check_finite(logits)
        run.counts.calls += 1
        run.counts.read += x.shape[1]  # those that had to be read anew included
        read = torch.cat((self._read, torch.tensor([draft.tokens])), dim=1)
        run.state, run.logits = after(run.state, read, (*self._early, *late)), logits[0, -1]
        self._hidden, self._early = [], ()
        return logits[0]

    def _first(self, run: Run, ids: Tensor) -> Tensor:
        """The last of the next tokens after the first layers; all are held."""
        lm, held = cast(Layered, run.lm), sum(x.shape[1] for x in self._hidden)
        x, self._early = lm.through(lm.embed(ids), self._early, self._start + held)
        self._hidden.append(x)
        return x[:, -1:]


def example(lm: LM) -> list[Strategy]:
    """Greedy and drawn."""
    return [LayerSkip(1, guesses=3), LayerSkip(1, guesses=2, temperature=0.9, top_p=0.9, patience=100)]
