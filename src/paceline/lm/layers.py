"""Models whose layers can be run apart (`core/layered.py`): those that are so by themselves, and Paceline's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.layered import Layered, Memories
from paceline.core.state import LM, State
from paceline.lm.decoder import Decoder


class LayeredDecoder:
    """A `Decoder` under `core.layered.Layered`: the same model and states, everything else of it at hand too.

    Args:
        decoder: shared, not copied.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.vocab_size: int = decoder.vocab_size

    def __getattr__(self, name: str) -> Any:
        """What is not said here, the decoder says."""
        return getattr(self.__dict__["decoder"], name)

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t v"], State]:
        """See `Decoder.forward`."""
        logits, after = self.decoder(ids, state)
        return logits, after

    def initial_state(self, batch: int) -> State:
        """See `Decoder.initial_state`."""
        return self.decoder.initial_state(batch)

    @property
    def depth(self) -> int:
        """Layers."""
        return len(self.decoder.stack)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """What the first layer reads."""
        return self.decoder._embed(ids)

    def through(
        self, x: Float[Tensor, "b t d"], past: Sequence[Mapping[str, Tensor]], start: int, *, first: int = 0
    ) -> tuple[Float[Tensor, "b t d"], Memories]:
        """See `Layered.through`; what Paceline's layers know of positions is in what they remember."""
        memories: list[Mapping[str, Tensor]] = []
        for layer, memory in zip(self.decoder.stack[first:], past, strict=False):
            x, memory = layer.extend(x, memory)
            memories.append(memory)
        return x, tuple(memories)

    def final(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """What the head's matrix reads of what comes out of a layer."""
        normed: Tensor = self.decoder.norm(x)
        return normed

    def head(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t v"]:
        """Logits of what comes out of a layer."""
        return self.decoder._head(self.final(x))


def layered(lm: LM) -> Layered:
    """The model as one whose layers can be run apart: itself, or a view of it.

    Raises:
        PacelineError: its layers cannot be reached.
    """
    if isinstance(lm, Decoder):
        return LayeredDecoder(lm)
    if isinstance(lm, Layered):
        return lm
    raise PacelineError(
        f"The layers of a {type(lm).__name__} cannot be run apart: give one of Paceline's own models, or a Llama-like."
    )
