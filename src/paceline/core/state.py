"""What decoding needs of a causal language model: one protocol, one state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class State:
    """What a model remembers of `length` tokens: keys and values, recurrent vectors, or both, layer by layer.

    Models never change a state in place, so keeping one is keeping a point to return to.
    """

    layers: tuple[Mapping[str, Tensor], ...]
    """Per layer, named tensors with the batch first."""
    length: int
    """Tokens seen."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.values())

    def fork(self) -> "State":
        """An independent copy."""
        return self._map(lambda tensor: tensor.clone())

    def select(self, rows: Int[Tensor, " k"]) -> "State":
        """The state of these sequences of the batch, in this order; rows may repeat (beams)."""
        return self._map(lambda tensor: tensor.index_select(0, rows))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "State":
        layers = tuple({name: change(tensor) for name, tensor in layer.items()} for layer in self.layers)
        return State(layers, self.length)


@runtime_checkable
class LM(Protocol):
    """A causal language model: `logits, state = lm(ids, state)`."""

    vocab_size: int

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None) -> tuple[Float[Tensor, "b t v"], State]:
        """Logits of the token after each of `ids`, which follow `state` (None: the beginning)."""
        ...
