"""Rounding to nearest: weights, activations and cache each to the nearest number of their grid. Nothing is learned.

    y = (s_o q_oi) x^_i,   q = clamp(round(w / s)) of 4 bits, two to a byte,   x^ on a grid of each token

One float32 scale an output (or `group` inputs of it): 4 + 32 / 1024 bits a weight of matrices 1,024 wide. The output
matrix, embeddings and norms stay. What every other way to few bits must beat.
"""

from paceline.compress._contract import Compression
from paceline.compress._low import LowBits
from paceline.core.card import Source
from paceline.core.state import LM

PAPERS = (
    Source(
        title="Up or Down? Adaptive Rounding for Post-Training Quantization",
        arxiv="2004.10568",
        year=2020,
        says="rounding to nearest is the rival that adaptive rounding is measured against",
    ),
)


class RTN(LowBits):
    """Round-to-nearest weights, activations and cache.

    Args:
        weights: bits, 4 or 8; 16 leaves them.
        activations: bits of what each map reads, 4 or 8; 16 leaves them.
        cache: bits of keys and values, 4 or 8; 16 leaves them. Needs a model of Llama's kind.
        group: inputs of an output that share a scale; 0: all.
        clip: shrinkages of each scale that are tried for the least error; 0: none.
    """

    def __init__(self, weights: int = 4, activations: int = 16, cache: int = 16, group: int = 0, clip: int = 0) -> None:
        super().__init__(weights, activations, cache, group, clip)

    def apply(self, lm: LM) -> LM:
        """See `Compression.apply`."""
        made: LM = self.with_cache(self.exchanged(lm, self.nearest))
        return made


def example() -> list[Compression]:
    """In 4 bits and 8, by output and by group, and with activations too."""
    return [RTN(), RTN(8), RTN(4, group=8), RTN(4, clip=8), RTN(8, activations=8)]
