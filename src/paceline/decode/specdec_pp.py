"""SpecDec++: speculative decoding that drafts on for as long as all guesses are likely to be accepted.

    stop after guess n where  1 - prod_{i < n} P(guess i is accepted) > threshold

which is the form of the best policy where drafting and verifying have a price (a Markov decision process). P is told
by a small head on what the draft model thinks of a guess once it has read it (`_acceptance.py: train_head`); so the
last guess, which is not read, is drafted but not judged, as in the authors' code. The output is that of speculation.
Cost beside `speculative`: a few d x d products a guess.
"""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.layered import Layered, is_layered, read_layers
from paceline.core.state import LM, State
from paceline.decode._acceptance import AcceptanceHead, train_head
from paceline.decode._choice import Choice
from paceline.decode._contract import Run, Strategy
from paceline.decode._draft import Bigram, Drafting, Follower
from paceline.decode._speculate import Draft, at_least_one

PAPERS = (
    Paper(
        title="SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths",
        arxiv="2405.19715",
        year=2024,
        says="Stopping a draft where a trained head foresees a refusal makes more tokens per second than any fixed "
        "number of guesses.",
    ),
)
__all__ = ["PAPERS", "AcceptanceHead", "SpecDecPP", "example", "train_head"]


class _Seeing(Follower):
    """A draft model whose hidden state after the last token is kept."""

    @torch.no_grad()
    def call(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Follower.call`."""
        lm = cast(Layered, self.lm)
        x, state = read_layers(lm, ids, state)
        self.hidden = lm.final(x[:, -1:])[0, 0]
        return lm.head(x), state


class SpecDecPP(Drafting):
    """Speculation with as many guesses as seem worth it.

    Args:
        draft: another model of the same vocabulary, whose layers can be run apart (`lm/layers.py`).
        head: of this draft and model, from `train_head`; or the file that it was saved in.
        threshold: probability of a refusal above which a draft ends.
        least: guesses of a draft at least, where there is room.
        guesses: at most.
        temperature: of the choice; 0 is greedy. So are `top_k` and `top_p` of the choice.
        patience: refused drafts in a row before a pause.

    Raises:
        PacelineError: a number outside its range, a draft without layers, or a head that is not of its width.
    """

    def __init__(
        self, draft: LM, head: AcceptanceHead | str, threshold: float = 0.3, least: int = 2, guesses: int = 20,
        temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, patience: int = 2,
    ) -> None:  # fmt: skip
        super().__init__(_Seeing(draft, guesses + 1), guesses, Choice(temperature, top_k, top_p), patience)
        at_least_one(least=least)
        if not 0 <= threshold <= 1:
            raise PacelineError(f"specdec_pp: threshold must be between 0 and 1, not {threshold}.")
        if not is_layered(draft):
            raise PacelineError(
                f"The layers of a {type(draft).__name__} cannot be run apart: give specdec_pp a Llama-like draft, or "
                "one of Paceline's under lm.layers.layered."
            )
        self.head = AcceptanceHead.load(Path(head)) if isinstance(head, str) else head
        width = draft.embed(torch.zeros(1, 1, dtype=torch.long)).shape[-1]
        if self.head.width != width:
            raise PacelineError(f"The head reads {self.head.width} numbers and the draft gives {width}: train its own.")
        self.threshold, self.least = threshold, least

    def draft(self, run: Run, room: int) -> Draft:
        """See `Speculation.draft`."""
        self._all_accepted = 1.0
        return super().draft(run, room)

    def enough(self, drafted: int) -> bool:
        """See `Drafting.enough`: the draft model has read all guesses but the last, and the head judges those."""
        if drafted > 1:
            self._all_accepted *= float(self.head.acceptance(cast(_Seeing, self.follower).hidden))
        return drafted >= self.least and 1 - self._all_accepted > self.threshold


def example(lm: LM) -> list[Strategy]:
    """With untrained heads: the model as its own draft where it can be, and a poor draft, greedy and drawn."""
    poor = Bigram(lm.vocab_size)
    best = lm if is_layered(lm) else poor
    with torch.no_grad():
        width = best.embed(torch.zeros(1, 1, dtype=torch.long)).shape[-1]
    return [
        SpecDecPP(best, AcceptanceHead(width, 1), guesses=5),
        SpecDecPP(poor, AcceptanceHead(poor.width), threshold=0.6, temperature=1.1, top_p=0.9, patience=100),
    ]
