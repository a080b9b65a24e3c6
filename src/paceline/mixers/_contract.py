"""The contract of the family: one causal map from sequence to sequence, whole, in chunks or step by step."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

MixerState = dict[str, Tensor]
"""What a mixer remembers of the past. Every tensor has the batch first. Never changed in place."""


@dataclass(frozen=True)
class Flops:
    """Forward operations, a multiply-add counted as two."""

    products: float
    """Matrix products, the share that `torch.utils.flop_counter` can see."""
    other: float = 0.0
    """Transforms, scans and element-wise recurrences, where they are of the order of the products."""

    @property
    def total(self) -> float:
        """Everything that is billed."""
        return self.products + self.other


class Mixer(nn.Module, ABC):
    """Token mixing, (b, t, d) -> (b, t, d), causal but for what the two flags below allow. Subclasses are final.

    `forward(x)` equals `extend` from a fresh state in any split into chunks. Because a mixer is causal, what
    follows a sequence (padding) changes nothing in it.
    """

    causal: bool = True
    """False where `forward` reads both ways: a part of an encoder, without a state, and refused in a decoder."""
    looks_ahead: ClassVar[bool] = False
    """True where a prompt, which is given as a whole, is read both ways: see `read_prompt`."""

    is_layer: ClassVar[bool] = False
    """True where the method brings its own norm and residual; the skeleton then adds none around it."""

    d_model: int

    @abstractmethod
    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """The whole sequence at once, from an empty past."""

    @abstractmethod
    def initial_state(self, batch: int) -> MixerState:
        """The empty past of `batch` sequences."""

    @abstractmethod
    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """The next t >= 1 tokens after `state`, and the state after them. `state` itself stays valid."""

    def read_prompt(self, x: Float[Tensor, "b t d"]) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """A whole prompt from an empty past, and the state after it. Causal mixers just extend."""
        return self.extend(x, self.initial_state(x.shape[0]))

    def after_prompt(self, x: Float[Tensor, "b t d"], prompt: int) -> Float[Tensor, "b t d"]:
        """`forward`, where the first `prompt` tokens are given as a whole."""
        if not (self.looks_ahead and prompt):
            return self(x)  # type: ignore[no-any-return]
        told, state = self.read_prompt(x[:, :prompt])
        if prompt >= x.shape[1]:
            return told
        return torch.cat((told, self.extend(x[:, prompt:], state)[0]), dim=1)

    @abstractmethod
    def state_bytes(self, batch: int, length: int) -> int:
        """Bytes of the state after `length` tokens, declared; equals what is measured, on the parameters' dtype."""

    @abstractmethod
    def flops(self, batch: int, length: int) -> Flops:
        """Forward operations on (batch, length, d); where they depend on data, at the last run's meters."""

    def packed(self, x: Float[Tensor, "1 t d"], documents: Int[Tensor, " t"]) -> Float[Tensor, "1 t d"]:
        """Several documents in one row, each seeing itself only.

        Args:
            x: the row.
            documents: the document of each token, in runs (0 0 0 1 1 2 ...).
        """
        _, counts = documents.unique_consecutive(return_counts=True)
        pieces = list(x[0].split(counts.tolist()))
        alone = self(nn.utils.rnn.pad_sequence(pieces, batch_first=True))
        return torch.cat([row[:count] for row, count in zip(alone, counts.tolist(), strict=True)]).unsqueeze(0)

    def check_length(self, length: int) -> None:
        """Refuse sequences of so many tokens, if on these the part would be another one.

        Raises:
            PacelineError: with the mend.
        """

    def meters(self) -> dict[str, float]:
        """What the part did in its last run; empty for a part that always does everything."""
        return {}

    def trace(self) -> Tensor | None:
        """Gates (b, t) of the last run, 0 where a token was not activated, for a part that chooses tokens."""
        return None
