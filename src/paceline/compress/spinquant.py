"""SpinQuant: rotations that leave a Llama's outputs as they are, learned so that its activations fit into few bits.

    R1 (d, d) of the residual stream and R2 (s, s) of each layer's value heads are multiplied into the weights
    R3 of queries and keys after positions, and R4 before each `down` map, are Hadamard matrices, at inference
    R1, R2 = argmin of the loss with activations and cache on their grids, by Cayley SGD from random Hadamard matrices

Weights are rounded to nearest, and so they are in the loss; or by GPTQ afterwards, and then not in the loss.
`steps=0` is the random rotation that the paper compares with (QuaRot). Inference costs `rtn`'s and two Hadamard
products a layer; a step of learning rotates every weight and is a forward and backward pass of one text.

Departures: Hadamard matrices by Paley's construction where the authors use tables (equal in kind); the rate falls
linearly (in the authors' script as a cosine); where their code straightens a rotation by chance one
step in a hundred, here it is once, at the end; the grid of a head's numbers always has 0; and the mean of an embedding
stays (see `_rotate.py`). Products are in floating point: bits are saved in memory, while activations only show what 4
bits cost.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from paceline.compress._calibrated import Calibrated
from paceline.compress._contract import Compression, example_ids, exchange_linears
from paceline.compress._fit import fitted
from paceline.compress._learn import Grids, Rotations, learned, random_rotations
from paceline.compress._low import PLAIN
from paceline.compress._rotate import is_llama, rotated
from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.state import LM

PAPERS = (
    Paper(
        title="SpinQuant: LLM Quantization with Learned Rotations",
        arxiv="2405.16406",
        year=2024,
        says="in 4 bits throughout, learned rotations leave a smaller gap than random ones, and those than none",
    ),
)


class SpinQuant(Calibrated):
    """Few bits behind learned rotations. For models of Llama's kind.

    Args:
        weights: bits, 4 or 8; 16 leaves them.
        activations: bits of what each map reads.
        cache: bits of keys and values.
        steps: of learning; 0: random rotations.
        rate: of the first step.
        rounding: of the weights, `gptq` or `nearest`.
        group: inputs that share a scale; 0: all.
        clip: shrinkages of each scale that are tried.
        texts: of calibration, for learning and GPTQ.
        length: tokens of each.
        seed: of rotations and texts.
        ids: the texts themselves, (n, t).

    Raises:
        PacelineError: another rounding, fewer than 0 steps; or as `Calibrated`.
    """

    turned = True
    llamas = True

    def __init__(
        self, weights: int = 4, activations: int = 4, cache: int = 4, steps: int = 100, rate: float = 1.5,
        rounding: Literal["gptq", "nearest"] = "gptq", group: int = 0, clip: int = 0,
        texts: int = 16, length: int = 256, seed: int = 0, ids: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__(weights, activations, cache, group, clip, texts, length, seed, ids)
        if rounding not in ("gptq", "nearest"):
            raise PacelineError(f"SpinQuant: rounding must be gptq or nearest, not {rounding!r}.")
        if steps < 0:
            raise PacelineError(f"SpinQuant: steps must be 0 or more, not {steps}.")
        self.steps, self.rate, self.rounding = steps, rate, rounding

    def rotations(self, lm: Any) -> Rotations:
        """Those to rotate by: random, and learned from there if there are steps.

        Raises:
            PacelineError: the model is not of Llama's kind.
        """
        if not is_llama(lm):
            exchange_linears(lm, lambda linear: linear)  # refuses what has no maps at all
            raise PacelineError(f"{type(lm).__name__} is not of Llama's kind: SpinQuant knows no other, gptq does.")
        found = random_rotations(lm, self.seed)
        if self.steps:
            weights = self.weights if self.rounding == "nearest" else PLAIN
            grids = Grids(weights, self.activations, self.cache, self.group, self.clip)
            found = learned(lm, found, self.calibration(lm), self.steps, self.rate, grids)
        return found

    def apply(self, lm: LM) -> LM:
        """See `Compression.apply`."""
        return self.rounded(lm, self.rotations(lm))

    def rounded(self, lm: Any, by: Rotations) -> LM:
        """The model rotated by these and then rounded."""
        with torch.no_grad():
            turned: Any = rotated(lm, by.stream, by.values)
            if self.rounding == "gptq" and self.weights != PLAIN:
                made: Any = fitted(self, turned, self.calibration)
            else:
                made = self.exchanged(turned, self.nearest)
        return self.with_cache(made)  # type: ignore[no-any-return]


def example() -> list[Compression]:
    """Learned and random rotations, on text of tokens 0 to 7."""
    return [SpinQuant(steps=2, ids=example_ids()), SpinQuant(steps=0, rounding="nearest")]
