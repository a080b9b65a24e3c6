"""Sampling: temperature, top-k, top-p (nucleus), min-p and typical sampling, alone or together."""

from paceline.core.card import Source
from paceline.core.state import LM
from paceline.decode._choice import Choice
from paceline.decode._contract import Stepwise, Strategy

PAPERS = (
    Source(title="The Curious Case of Neural Text Degeneration", arxiv="1904.09751", year=2019, says="top-p"),
    Source(title="Hierarchical Neural Story Generation", arxiv="1805.04833", year=2018, says="top-k"),
    Source(title="Locally Typical Sampling", arxiv="2202.00666", year=2022),
    Source(
        title="Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs", arxiv="2407.01082", year=2024
    ),
)


class Sample(Stepwise):
    """Draws each token; see `_choice.py` for what the arguments cut.

    Raises:
        PacelineError: a value outside its range, or a temperature of 0, which is `greedy`.
    """

    lossless = True

    def __init__(
        self, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, typical: float = 1.0
    ) -> None:
        super().__init__(Choice(temperature, top_k, top_p, min_p, typical))


def example(lm: LM) -> list[Strategy]:
    """Cuts alone, and all together."""
    return [Sample(top_p=0.9), Sample(0.8, 4, 0.95, 0.02, 0.95)]


def greedy_limit(lm: LM) -> list[Strategy]:
    """Cuts that leave the likeliest token alone."""
    return [Sample(top_k=1), Sample(top_p=1e-9), Sample(min_p=1 - 1e-12)]
