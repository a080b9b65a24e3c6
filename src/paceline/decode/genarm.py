"""GenARM: autoregressive reward models, which score every next token, guide a frozen model.

    log pi(y_t | x, y_<t) = log pi_base(y_t | x, y_<t) + (1 / beta) sum_i w_i log pi_r_i(y_t | x, y_<t) - log Z

The reward of a text is sum_t log pi_r(y_t | x, y_<t), so pi_r is a language model trained on preferences
(`_reward.py: preference_loss`), and one step costs one call of each model, where a reward model of whole texts would
need one for each next token. Several rewards are weighted anew at each use, with no training. The authors' code has
one number alpha_i for w_i / beta, and draws at temperature 1; its templates differ from base to reward model, here all
read the same tokens.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.state import LM
from paceline.decode._choice import Choice
from paceline.decode._contract import Stepwise, Strategy, compatible
from paceline.decode._guided import Combination, GuidedLM

PAPERS = (
    Paper(
        title="GenARM: Reward Guided Generation with Autoregressive Reward Model for Test-time Alignment",
        arxiv="2410.08193",
        year=2024,
        says="Guiding a frozen model by the next-token probabilities of an autoregressive reward model aligns it "
        "better than other test-time methods, and about as well as training it.",
    ),
)


class GenARM(Stepwise):
    """Draws from the model times its reward models.

    Args:
        rewards: autoregressive reward models, one or several.
        weights: of each; default: 1 each.
        beta: how little they count; infinite is the model alone.
        temperature: of the choice; 0 is greedy, 1 the paper's. So are `top_k`, `top_p`, `min_p` and `typical`.

    Raises:
        PacelineError: no reward model, not one weight for each, or a beta not above 0; later, other vocabularies.
    """

    helpers: tuple[str, ...] = ("rewards",)

    def __init__(
        self,
        rewards: LM | Sequence[LM],
        weights: Sequence[float] = (),
        beta: float = 1.0,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical: float = 1.0,
    ) -> None:
        super().__init__(Choice(temperature, top_k, top_p, min_p, typical))
        self.rewards: tuple[LM, ...] = tuple(rewards) if isinstance(rewards, Sequence) else (rewards,)
        self.weights = tuple(weights) or (1.0,) * len(self.rewards)
        if not self.rewards or len(self.weights) != len(self.rewards):
            raise PacelineError(
                f"genarm: there are {len(self.rewards)} reward models and {len(self.weights)} weights: give at least "
                "one model, and a weight for each."
            )
        if not beta > 0:
            raise PacelineError(f"genarm: beta must be above 0, not {beta}.")
        self.beta = beta

    def prepare(self, lm: LM) -> LM:
        """The guided model, itself a language model."""
        for reward in self.rewards:
            compatible(lm, reward, "reward model")
        return GuidedLM(lm, Combination(self.rewards, self._combine))

    def _combine(self, logits: Sequence[Tensor]) -> Tensor:
        base, *rewards = (said.log_softmax(-1) for said in logits)
        for weight, reward in zip(self.weights, rewards, strict=True):
            base = base + weight / self.beta * reward
        return base


def example(lm: LM) -> list[Strategy]:
    """The model rewards itself: greedy; and drawn, with two rewards."""
    return [GenARM(lm, beta=2.0), GenARM([lm, lm], (0.7, -0.3), temperature=1.0)]


def greedy_limit(lm: LM) -> list[Strategy]:
    """Rewards that do not count, and such as say what the model says."""
    return [GenARM(lm, beta=math.inf), GenARM(lm, beta=0.5)]
