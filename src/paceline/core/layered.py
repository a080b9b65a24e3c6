"""Language models whose layers can be run apart: to leave early, or to go on from where one has left."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.growing import Growing
from paceline.core.stacked import followed
from paceline.core.state import LM, State

Memories = Sequence[Mapping[str, Tensor]]
"""What layers remember, one after the other; those of all layers are the first in `State.layers`."""


@runtime_checkable
class Layered(LM, Protocol):
    """A language model that is `head(through(embed(ids)))`, with one width d from the first layer to the last."""

    @property
    def depth(self) -> int:
        """Layers."""
        ...

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """What the first layer reads."""
        ...

    def through(
        self, x: Float[Tensor, "b t d"], past: Sequence[Mapping[str, Tensor]], start: int, *, first: int = 0
    ) -> tuple[Float[Tensor, "b t d"], Memories]:
        """The layers from number `first` on, as many as there is `past`, of tokens that follow `start` others.

        Returns:
            What comes out of the last of them, and what they remember then.
        """
        ...

    def final(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """What the head's matrix reads of what comes out of a layer: its norm."""
        ...

    def head(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t v"]:
        """Logits of what comes out of any layer, its norm included."""
        ...


def is_layered(lm: Any) -> TypeGuard[Layered]:
    """Whether a model's layers can be run apart; what it merely passes on counts too."""
    return all(hasattr(lm, name) for name in ("depth", "embed", "through", "final", "head"))


def after(state: State, read: Int[Tensor, "b r"], layers: Memories) -> State:
    """The state once `read`, which `state.to_read` gave, has led all layers to what they remember now."""
    if isinstance(state, Growing):
        return Growing(followed(layers, state.layers[len(layers) :]), state.length + read.shape[1], of=state.of)
    return state.after(read, layers)


def start_of(state: State, read: Int[Tensor, "b r"], ids: Int[Tensor, "b t"]) -> int:
    """Tokens before the first of `read`, which `state.to_read(ids)` gave."""
    return state.length - (read.shape[1] - ids.shape[1])


def read_layers(lm: Layered, ids: Int[Tensor, "b t"], state: State | None) -> tuple[Float[Tensor, "b t d"], State]:
    """What comes out of the last layer for each of `ids`, and the state after them: the model without its head."""
    state = lm.initial_state(len(ids)) if state is None else state
    read = state.to_read(ids)
    x, layers = lm.through(lm.embed(read), state.layers[: lm.depth], start_of(state, read, ids))
    return x[:, -ids.shape[1] :], after(state, read, layers)
