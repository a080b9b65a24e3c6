"""What a training step over a divided sequence should take: a prediction, from a machine's rates and nothing else.

A process has C = length / n tokens of each row. Its layers cost products at `flops`, and the messages of the method:

    hop(x)    = message + x / bandwidth                             from one process to another
    gather(x) = (n - 1) (hop + x / bandwidth)                       to all, in a ring, within the library
    lasp2     = states + max(inside, gather(M)) + through           M, KV: bytes of a state, of keys and values
    lasp      = states + max(inside, (n - 1) hop(M)) + through
    ring      = (n - 1) max(block, hop(KV)) + block
    gather_attention = gather(KV) + n block

forward, and alike backward with twice the products (softmax: two and a half times, the scores are computed again). All
else of a layer, its projections and its feed-forward, is 24 d^2 operations a token forward. The last process of causal
softmax attention works longest, and the others wait for it. Not in it: memory, the optimizer, the sum of the gradients,
element-wise work, links of unequal speed, and what several processes take from each other on one machine.
"""

from dataclasses import dataclass

from paceline.core.discovery import load
from paceline.core.errors import PacelineError
from paceline.parallel._chunks import CHUNK
from paceline.parallel._contract import SequenceParallel, Shape, Traffic

BACKWARD, SOFTMAX_BACKWARD = 2.0, 2.5
METHODS = ("lasp2", "lasp", "ring", "gather_attention")


@dataclass(frozen=True)
class Machine:
    """Rates of one process.

    Raises:
        PacelineError: a rate is not above 0.
    """

    flops: float
    """Operations a second in matrix products, a multiply-add counted as two."""
    bandwidth: float
    """Bytes a second from one process to another."""
    message: float
    """Seconds from the call of a send to the end of its receipt, without bytes."""
    hop: float
    """Seconds of a step within a collective, without bytes; not above `message`."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise PacelineError(f"A machine's {name} must be above 0, not {value:g}.")


@dataclass(frozen=True)
class Prediction:
    """Of one method, for one number of processes."""

    method: str
    devices: int
    seconds: float
    """A training step."""
    waiting: float
    """Of these, seconds in which messages are not hidden by products."""
    traffic: Traffic
    """Of the busiest process, a layer."""


def predict(method: str, shape: Shape, layers: int, machine: Machine) -> Prediction:
    """A training step of a model whose layers all use one method.

    Args:
        method: of `METHODS`.
        shape: a layer's attention; `ranks` is the number of processes.
        layers: how many.
        machine: the rates.

    Raises:
        PacelineError: the length does not divide.
    """
    if shape.length % shape.ranks:
        raise PacelineError(f"{shape.length} tokens do not divide over {shape.ranks} devices: give a multiple.")
    busy, free = (_layer(method, shape, rates) for rates in (machine, _endless(machine)))
    tokens, width = shape.batch * shape.length / shape.ranks, shape.heads * shape.value_width
    rest = (1 + BACKWARD) * 24.0 * tokens * width**2 / machine.flops
    kind = _kind(method)
    ranks = {0, shape.ranks // 2, shape.ranks - 1}
    traffic = max((kind.traffic(shape, rank) for rank in ranks), key=lambda t: t.total)
    return Prediction(method, shape.ranks, layers * (busy + rest), layers * (busy - free), traffic)


def _layer(method: str, shape: Shape, machine: Machine) -> float:
    """Seconds of a layer's attention, forward and backward."""
    n, tokens = shape.ranks, shape.batch * shape.heads * shape.length / shape.ranks
    widths = shape.key_width + shape.value_width

    def hop(size: int) -> float:
        return machine.message + size / machine.bandwidth

    def gather(size: int) -> float:
        return (n - 1) * (machine.hop + size / machine.bandwidth)

    if method in ("lasp", "lasp2"):
        states = 2.0 * tokens * shape.key_width * shape.value_width / machine.flops
        inside = 2.0 * tokens * min(CHUNK, shape.length // n) * widths / machine.flops
        travel = gather(shape.state) if method == "lasp2" else (n - 1) * hop(shape.state)
        return sum(2 * times * states + max(times * inside, travel) for times in (1.0, BACKWARD))
    block = 2.0 * tokens * (shape.length / n) * widths / machine.flops
    if method == "ring":
        forward = (n - 1) * max(block, hop(shape.keys_values)) + block
        turn = hop(2 * shape.keys_values) if n > 1 else 0.0
        return forward + n * max(SOFTMAX_BACKWARD * block, turn)
    return (1 + SOFTMAX_BACKWARD) * n * block + 2 * gather(shape.keys_values)


def _endless(machine: Machine) -> Machine:
    """One whose messages take no time."""
    return Machine(machine.flops, float("inf"), 1e-300, 1e-300)


def _kind(method: str) -> type[SequenceParallel]:
    kinds = [value for value in vars(load("parallel", method)).values() if isinstance(value, type)]
    return next(k for k in kinds if issubclass(k, SequenceParallel) and k.__name__.lower() == method.replace("_", ""))
