"""Proxy-tuning: a large model moves as a small one moved when it was tuned; the large one is only read.

    p(x_t | x_<t) = softmax(s_M(x_<t) + alpha (s_M+(x_<t) - s_M-(x_<t)))

with the logits s of the model M, of a small tuned expert M+ and of the same small model untuned, the antiexpert M-.
The paper has alpha = 1; its authors' code has alpha. The three must share one vocabulary: where experts have tokens
more, the authors cut them off, and this refuses. Cost: a call of each model, and the memory of all three states.
"""

from paceline.core.card import Paper
from paceline.core.state import LM
from paceline.decode._choice import Choice
from paceline.decode._contract import Stepwise, Strategy, compatible
from paceline.decode._guided import Combination, GuidedLM

PAPERS = (
    Paper(
        title="Tuning Language Models by Proxy",
        arxiv="2401.08565",
        year=2024,
        says="Adding the difference of a small tuned and a small untuned model to a large model's logits closes most "
        "of the gap to tuning the large model itself.",
    ),
)


class ProxyTuning(Stepwise):
    """Draws from the model moved by the difference of two others.

    Args:
        expert: a tuned model.
        antiexpert: the same before it was tuned.
        alpha: how far to move; 0 is the model itself.
        temperature: of the choice; 0 is greedy. So are `top_k`, `top_p`, `min_p` and `typical` (`_choice.py`).

    Raises:
        PacelineError: a choice outside its range; later, models of other vocabularies.
    """

    helpers: tuple[str, ...] = ("expert", "antiexpert")

    def __init__(
        self,
        expert: LM,
        antiexpert: LM,
        alpha: float = 1.0,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical: float = 1.0,
    ) -> None:
        super().__init__(Choice(temperature, top_k, top_p, min_p, typical))
        self.expert, self.antiexpert, self.alpha = expert, antiexpert, alpha

    def prepare(self, lm: LM) -> LM:
        """The moved model, itself a language model."""
        for role in self.helpers:
            compatible(lm, getattr(self, role), role)
        alpha = self.alpha
        return GuidedLM(lm, Combination((self.expert, self.antiexpert), lambda s: s[0] + alpha * (s[1] - s[2])))


def example(lm: LM) -> list[Strategy]:
    """The expert is the model itself, more sure of itself; greedy, and drawn."""
    expert = GuidedLM(lm, Combination((lm,), lambda s: s[0] + 0.5 * s[1]))
    return [ProxyTuning(expert, lm), ProxyTuning(expert, lm, alpha=2.0, temperature=0.9, top_p=0.9)]


def greedy_limit(lm: LM) -> list[Strategy]:
    """Not moved at all, moved by nothing, and moved along its own logits."""
    expert = GuidedLM(lm, Combination((lm,), lambda s: s[0] + 0.5 * s[1]))
    return [ProxyTuning(expert, lm, alpha=0.0), ProxyTuning(lm, lm), ProxyTuning(expert, lm)]
