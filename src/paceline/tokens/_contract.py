"""What tokenizations and byte views are.

Tokenization   bytes -> tokens -> the same bytes
ByteView       a language model of tokens as one of bytes: `logits, state = view(byte_ids, state)`
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.state import State

END = 256
"""The symbol after the 256 bytes: the text ends."""


class Tokenization(ABC):
    """Bytes to tokens and back: `decode(encode(data)) == data` for any bytes, and the same bytes give the same tokens.

    Attributes:
        vocab_size: tokens are below it.
    """

    vocab_size: int

    @abstractmethod
    def encode(self, data: bytes) -> list[int]:
        """The tokens of the bytes."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes of the tokens."""


class ByteView(ABC):
    """A language model over the 256 bytes and `END`, under `core.state.LM`.

    Attributes:
        looks_ahead: prompts are read as a whole, by `read_prompt`.
    """

    vocab_size: int = END + 1
    looks_ahead: bool = True

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The empty past of `batch` texts."""

    @abstractmethod
    def __call__(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t v"], State]:
        """Log-probabilities of the byte after each of `ids`, which follow `state`; v = 257."""

    @abstractmethod
    def prompt(self, data: bytes) -> tuple[Float[Tensor, " v"], State]:
        """What `self` says after all of `data` from the beginning, and the state there: the quick way to read much."""

    def read_prompt(self, ids: Int[Tensor, "1 t"]) -> tuple[Float[Tensor, "1 1 v"], State]:
        """`prompt` of a text's bytes, as the engine of decoding calls it."""
        logits, state = self.prompt(bytes(ids[0].tolist()))
        return logits[None, None], state
