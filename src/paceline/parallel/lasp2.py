"""LASP-2: linear attention over a divided sequence, for one all-gather of the states in each direction.

Process t of n holds the queries, keys and values of C tokens. With M_t = K_t^T V_t, the state that its part leaves:

    all-gather M_1 .. M_n,   P_t = sum_(s<t) M_s,   O_t = [(Q_t K_t^T) * mask] V_t + Q_t P_t
    backward: dP_t = Q_t^T dO_t, all-gather, dM_t = sum_(s>t) dP_s

and O_t = Q_t sum_s M_s where every token sees all. A state is b h s e numbers, whatever the length: a process sends
(n - 1) b h s e numbers forward and as many backward, in two rounds a training step. Forward the products inside chunks
run while the states travel, backward their gradients do. Work: that of one process over n, nothing is added.

A causal head may forget, as lightning attention and RetNet do: M_t then has each key at its age at the part's end, and
P_t = sum_(s<t) exp(-rate C (t-1-s)) M_s, likewise backward; the authors' LASP has this decay, their LASP-2 has none.
States travel in the dtype of the inputs. All gather all, so a process's bytes grow with n: what is saved is rounds.
The authors' published kernel for masked attention hides nothing within blocks of 64 tokens; here each token sees the
earlier ones alone, as their paper says. Between processes the two are equal (`claims/parallel/lasp2.py`).
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.card import Paper
from paceline.parallel._chunks import naive_linear, part
from paceline.parallel._contract import SequenceParallel, Shape, Traffic
from paceline.parallel._link import Link, Pending

PAPERS = (
    Paper(
        title="LASP-2: Rethinking Sequence Parallelism for Linear Attention and Its Hybrid",
        arxiv="2502.07563",
        year=2025,
        says="One all-gather of states, whose size does not depend on the length, replaces a ring of messages.",
    ),
)

State = Float[Tensor, "b heads s e"]
States = Float[Tensor, "n b heads s e"]


class LASP2(SequenceParallel):
    """Linear attention by an all-gather of states. See `SequenceParallel`."""

    _recalled: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None) -> Tensor:
        """See `SequenceParallel.attend`."""
        if not self.causal:
            return q @ self._shared(k.transpose(2, 3) @ v, None)()
        mine = part(q, k, v, rate)
        fading = torch.exp(-mine.rate * mine.length).view(-1, 1, 1)
        arrive = self._shared(mine.left, fading)
        inside = mine.inside()  # while the states travel
        first = arrive()
        outputs = mine.outputs(inside, first)
        self._recalled = mine.recalled(outputs, first)
        return outputs

    def before(self, states: States, fading: Tensor | None) -> State:
        """P of this process from the states of all."""
        if fading is None:
            return states.sum(0)
        return _faded_sum(states[: self.link.rank].unbind(0), states[0], fading)

    def after(self, gradients: States, fading: Tensor | None) -> State:
        """The gradient of this process's state from those of all P: the transpose of `before`."""
        if fading is None:
            return gradients.sum(0)
        return _faded_sum(gradients[self.link.rank + 1 :].flip(0).unbind(0), gradients[0], fading)

    @staticmethod
    def traffic(shape: Shape, rank: int) -> Traffic:
        """See `SequenceParallel.traffic`."""
        sent, round_ = (shape.ranks - 1) * shape.state, int(shape.ranks > 1)
        return Traffic(sent, sent, round_, round_)

    def naive(self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None = None) -> Tensor:
        """See `SequenceParallel.naive`."""
        return naive_linear(q, k, v, rate, self.causal)

    def meters(self) -> dict[str, float]:
        """`recalled`: of the energy of its first 64 outputs, what other processes sent, in the last causal run."""
        return {} if self._recalled is None else {"recalled": self._recalled.item()}

    def _shared(self, left: State, fading: Tensor | None) -> Callable[[], Tensor]:
        """Send off the states; what is returned waits for P."""
        trip = _Trip(self, fading)
        sent = _Depart.apply(left, trip)
        return lambda: _Arrive.apply(sent, trip)


class _Trip:
    """States on their way, there and, as gradients, back."""

    def __init__(self, how: LASP2, fading: Tensor | None) -> None:
        self.how, self.fading = how, fading
        self.under_way: Pending | None = None

    def depart(self, state: Tensor) -> None:
        self.under_way = self.how.link.gather(state)

    def arrive(self) -> Tensor:
        assert self.under_way is not None
        states, self.under_way = self.under_way.wait(), None
        return states


class _Depart(torch.autograd.Function):
    """Forward the states leave; backward the gradients arrive. What is between the two passes runs meanwhile."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, trip: _Trip) -> Tensor:
        ctx.trip = trip
        trip.depart(left)
        return left.view_as(left)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        return ctx.trip.how.after(ctx.trip.arrive(), ctx.trip.fading), None


class _Arrive(torch.autograd.Function):
    """Forward the states arrive; backward the gradients leave, and a stand-in goes to `_Depart`."""

    @staticmethod
    def forward(ctx: Any, sent: Tensor, trip: _Trip) -> Tensor:
        ctx.trip = trip
        return trip.how.before(trip.arrive(), trip.fading)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.trip.depart(gradients[0])
        return gradients[0], None


def _faded_sum(states: tuple[Tensor, ...], like: Tensor, fading: Tensor) -> Tensor:
    """Sum of states, each fading once for every one after it."""
    total = torch.zeros_like(like)
    for state in states:
        total = fading * total + state
    return total


def example(link: Link) -> list[SequenceParallel]:
    """Causal, and both ways."""
    return [LASP2(link), LASP2(link, causal=False)]
