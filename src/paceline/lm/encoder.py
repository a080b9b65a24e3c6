"""The encoder form: the decoder's layers over a whole sequence, for one answer a sequence.

    layers 0, 2, ... read from left to right, layers 1, 3, ... from right to left
    logits = E mean_t norm(x_t)

So a causal mixer serves as it is, with as many parameters as in a decoder, and a mixer that reads both ways as well.
A model of one layer, if its mixer is causal, reads one way only.
"""

from typing import NoReturn

from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.state import State
from paceline.lm.decoder import Decoder
from paceline.mixers._contract import Flops


class Encoder(Decoder):
    """A classifier over a plan of mixers: the answer is the likeliest token of the vocabulary."""

    reads_both_ways = True

    def logits(self, ids: Int[Tensor, "b t"], prompt: int = 0) -> Float[Tensor, "b t v"]:
        """Of the one answer, the same at every position: a task asks at the last, and nothing is copied."""
        pooled = self._head(self.hidden_states(ids, prompt).mean(1, keepdim=True))
        return pooled.expand(-1, ids.shape[1], -1)

    def hidden_states(self, ids: Int[Tensor, "b t"], prompt: int = 0) -> Float[Tensor, "b t d"]:
        """Of each token, having read all; `prompt` makes no difference."""
        x = self._embed(ids)
        for index, layer in enumerate(self.stack):
            x = layer(x.flip(1)).flip(1) if index % 2 else layer(x)
        return self.norm(x)

    def traces(self) -> dict[int, Float[Tensor, "b t"]]:
        """By layer, in the order of the tokens."""
        return {index: gates.flip(1) if index % 2 else gates for index, gates in super().traces().items()}

    def flops(self, batch: int, length: int) -> Flops:
        """As the decoder's, but that the head reads one vector a sequence."""
        whole = super().flops(batch, length)
        return Flops(whole.products - 2.0 * batch * (length - 1) * self.vocab_size * self.d_model, whole.other)

    def state_bytes(self, batch: int, length: int) -> int:
        """None: an encoder does not go on."""
        return 0

    def extend(self, ids: Int[Tensor, "b t"], state: State | None = None) -> NoReturn:
        """Refused.

        Raises:
            PacelineError: always.
        """
        raise PacelineError("An encoder reads a sequence as a whole: it has no state and generates nothing.")

    def read_prompt(self, ids: Int[Tensor, "b t"]) -> NoReturn:
        """Refused, as `extend` is."""
        self.extend(ids)
