"""Speculative decoding: a small draft model guesses several tokens, the model verifies them in one call.

    x_i ~ q(. | x_<i)  for i = 1..guesses, drawn from the draft under the same choice
    accepted with probability min(1, p(x_i) / q(x_i)), and so on: see `_speculate.py`

A draft of n guesses costs n calls of the draft model and one call of the model, which gives 1 to n + 1 tokens. The
draft's state is taken back with the model's, so both may be of any kind, recurrent ones too. A draft model that guesses
nothing right pauses, longer each time, and catches up in one call.
"""

from paceline.core.card import Source
from paceline.core.state import LM
from paceline.decode._choice import Choice
from paceline.decode._contract import Strategy
from paceline.decode._draft import Bigram, Drafting, Follower

PAPERS = (
    Source(title="Fast Inference from Transformers via Speculative Decoding", arxiv="2211.17192", year=2023),
    Source(title="Accelerating Large Language Model Decoding with Speculative Sampling", arxiv="2302.01318", year=2023),
)


class Speculative(Drafting):
    """Speculation by a draft model.

    Args:
        draft: another model of the same vocabulary.
        guesses: tokens of a draft.
        temperature: of the choice; 0 is greedy. So are `top_k`, `top_p` and `min_p` of the choice.
        patience: refused drafts in a row before a pause.

    Raises:
        PacelineError: a number below 1, or a choice outside its range; later, a model of another vocabulary.
    """

    def __init__(
        self, draft: LM, guesses: int = 4, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0,
        min_p: float = 0.0, patience: int = 2,
    ) -> None:  # fmt: skip
        super().__init__(Follower(draft, guesses + 1), guesses, Choice(temperature, top_k, top_p, min_p), patience)


def example(lm: LM) -> list[Strategy]:
    """A perfect draft and a poor one, greedy and drawn."""
    poor = Bigram(lm.vocab_size)
    return [
        Speculative(lm, guesses=3),
        Speculative(poor, guesses=2, patience=3),
        Speculative(lm, guesses=2, temperature=0.9, top_p=0.9),
        Speculative(poor, temperature=1.1, top_k=4, patience=100),
    ]
