"""GPTQ: weights rounded one input after the other, so that later ones make good the errors of earlier ones.

    minimise |W X - W' X|^2 for the inputs X that the map reads of calibration text; `_columns.py` has the algorithm

The bits and what happens at inference are those of `rtn`. All maps are rounded in one forward pass: each takes the
inputs that it gets from the maps rounded before it, as in the original. Cost: the pass, i^3 and o i^2 a map.

Departures: inputs in their natural order (the authors' code can sort them), and maps that read the same are one matrix.
"""

from typing import Any

from torch import Tensor

from paceline.compress._calibrated import Calibrated
from paceline.compress._contract import Compression, example_ids
from paceline.compress._fit import fitted
from paceline.core.card import Source
from paceline.core.state import LM

PAPERS = (
    Source(
        title="GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
        arxiv="2210.17323",
        year=2022,
    ),
)


class GPTQ(Calibrated):
    """Weights rounded by what they do to calibration text.

    Args:
        weights: bits, 4 or 8.
        activations: see `RTN`, as the next three.
        cache: of keys and values.
        group: inputs that share a scale.
        clip: shrinkages that are tried.
        texts: of calibration.
        length: tokens of each.
        seed: draws the texts.
        ids: the texts themselves, (n, t).
    """

    def __init__(
        self, weights: int = 4, activations: int = 16, cache: int = 16, group: int = 0, clip: int = 0,
        texts: int = 16, length: int = 256, seed: int = 0, ids: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__(weights, activations, cache, group, clip, texts, length, seed, ids)

    def apply(self, lm: LM) -> LM:
        """See `Compression.apply`."""
        made: Any = fitted(self, lm, self.calibration)
        return self.with_cache(made)  # type: ignore[no-any-return]


def example() -> list[Compression]:
    """In 4 bits by output and by group, on text of tokens 0 to 7."""
    return [GPTQ(ids=example_ids()), GPTQ(group=8, ids=example_ids())]
