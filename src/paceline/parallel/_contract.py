"""The contract of the family: attention over a sequence of which each of n processes holds an equal part, in order.

Outputs and gradients are those of one process. What is sent is declared by `traffic`, and equals what `Link` counts.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.parallel._link import Link


@dataclass(frozen=True)
class Shape:
    """Sizes of one layer's attention."""

    batch: int
    heads: int
    length: int
    """Tokens of the whole sequence."""
    key_width: int
    value_width: int
    ranks: int
    kv_heads: int = 0
    """Heads of keys and values; 0 for as many as `heads`."""
    element: int = 4
    """Bytes of a number."""

    @property
    def state(self) -> int:
        """Bytes of the state K^T V of all heads."""
        return self.batch * self.heads * self.key_width * self.value_width * self.element

    @property
    def keys_values(self) -> int:
        """Bytes of the keys and values of one process."""
        heads, width = self.kv_heads or self.heads, self.key_width + self.value_width
        return self.batch * heads * (self.length // self.ranks) * width * self.element


@dataclass(frozen=True)
class Traffic:
    """What a process sends in one pass over a layer."""

    forward: int
    """Bytes."""
    backward: int
    forward_rounds: int
    """Messages that follow one another, over all processes; a collective is one."""
    backward_rounds: int

    @property
    def total(self) -> int:
        """Bytes of a training step."""
        return self.forward + self.backward

    @property
    def rounds(self) -> int:
        """Rounds of a training step."""
        return self.forward_rounds + self.backward_rounds


class SequenceParallel(ABC):
    """Attention whose sequence lies in parts on several processes. All of them call it at once, with equal shapes.

    Args:
        link: the processes.
        causal: whether a token sees the earlier ones only.
    """

    linear = True
    """Whether it is linear attention, which may have a decay; else softmax attention, which may share keys."""

    def __init__(self, link: Link, causal: bool = True) -> None:
        self.link, self.causal = link, causal
        self._checked = -1

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None = None) -> Tensor:
        """This process's part of the outputs, (b, heads, t, e), from its parts of queries, keys and values.

        Args:
            q: queries (b, heads, t, s) of this process's t tokens.
            k: keys (b, kv_heads, t, s).
            v: values (b, kv_heads, t, e).
            rate: (heads,), what each head forgets a token, as a natural logarithm; it gets no gradient. For causal
                linear attention only.

        Raises:
            PacelineError: shapes that do not fit, parts of unequal length, or another process that does not answer.
        """
        name, shared = type(self).__name__, q.shape[1] != k.shape[1]
        if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[2:] != k.shape[2:]:
            raise PacelineError(
                f"{name}: queries {tuple(q.shape)}, keys {tuple(k.shape)} and values {tuple(v.shape)} do not fit "
                "together: give (batch, heads, tokens, width) of the same tokens."
            )
        if shared and (self.linear or q.shape[1] % k.shape[1]):
            raise PacelineError(
                f"{name}: {q.shape[1]} heads of queries over {k.shape[1]} of keys: repeat the keys to as many heads."
            )
        if rate is not None and not (self.linear and self.causal):
            raise PacelineError(f"{name}: only causal linear attention forgets: leave the rate out.")
        if q.shape[2] != self._checked:  # where another process sees no change, its next message is not what we ask for
            self.link.same_length(q.shape[2])
            self._checked = q.shape[2]
        return self.attend(q, k, v, rate)

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None) -> Tensor:
        """See `__call__`, which has checked the arguments."""

    @staticmethod
    @abstractmethod
    def traffic(shape: Shape, rank: int) -> Traffic:
        """What process `rank` sends, declared."""

    @abstractmethod
    def naive(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None = None) -> Tensor:
        """The same over the whole sequence in one process, plainly: the matrix of all scores."""

    def meters(self) -> dict[str, float]:
        """What it did in its last run."""
        return {}
