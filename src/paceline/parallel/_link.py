"""The processes that hold the parts of a sequence: what they tell each other, counted, and with an end to waiting.

Bytes are those that this process puts on the wire. An all-gather of x over n processes is n - 1 times the bytes of x,
whichever way a library carries it out: each part must come to n - 1 others, and each process sends as much as any.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from paceline.core.errors import PacelineError

GATHER, SEND, RECEIVE = "gather", "send", "receive"
# all_gather_into_tensor is its name before torch 2.13
_gather: Any = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor


@dataclass(frozen=True)
class Told:
    """One thing that a process did, in the order in which it began sends and ended waits."""

    kind: str
    peer: int
    nbytes: int


@dataclass
class Pending:
    """Something under way. The tensors stay alive until it is done."""

    link: "Link"
    works: list[Any]
    result: Tensor
    kept: tuple[Tensor, ...] = ()
    done: list[Told] = field(default_factory=list)

    def wait(self) -> Tensor:
        """What came.

        Raises:
            PacelineError: another process ended, failed, or kept this one waiting for longer than its patience.
        """
        try:
            for work in self.works:
                work.wait(timedelta(seconds=self.link.patience))
        except RuntimeError as error:
            raise self.link.lost(error) from error
        self.link._tell(*self.done)
        self.works, self.kept, self.done = [], (), []
        return self.result


class Link:
    """This process among those of a group, in the order of the parts that they hold.

    Args:
        group: of gloo or NCCL; all processes that `torch.distributed` knows if left out, and this one alone without it.
        patience: seconds to wait for another process. With NCCL, what has begun ends at the group's own timeout.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None, patience: float = 60.0) -> None:
        there = distributed.is_available() and distributed.is_initialized()
        self.group, self.patience = group, patience
        self.rank = distributed.get_rank(group) if there else 0
        self.size = distributed.get_world_size(group) if there else 1
        self.sent = 0
        """Bytes since the beginning, or since somebody set it to 0."""
        self._log: list[Told] | None = None

    def part(self, x: Tensor, axis: int = 1) -> Tensor:
        """This process's part of what all have whole.

        Raises:
            PacelineError: it does not divide.
        """
        length = x.shape[axis]
        if length % self.size:
            raise PacelineError(
                f"A sequence of {length} tokens does not divide over {self.size} processes: pad it to "
                f"{-(-length // self.size) * self.size}, or cut it to {length // self.size * self.size}."
            )
        return x.tensor_split(self.size, axis)[self.rank]

    def same_length(self, length: int) -> None:
        """Make sure that all processes hold parts of one length. Not counted.

        Raises:
            PacelineError: they do not.
        """
        if self.size == 1:
            return
        device = torch.device("cuda") if distributed.get_backend(self.group) == "nccl" else torch.device("cpu")
        mine, all_ = (torch.full((n,), length, device=device) for n in (1, self.size))
        work = _gather(all_, mine, self.group, async_op=True)
        if len(set(found := Pending(self, [work], all_).wait().tolist())) > 1:
            raise PacelineError(
                f"The processes hold parts of {', '.join(map(str, found))} tokens: pad the sequence so that all hold "
                "as many."
            )

    def gather(self, x: Tensor) -> Pending:
        """Begin to collect the x of all processes, as (processes, ...)."""
        x = x.detach().contiguous()
        if self.size == 1:
            return Pending(self, [], x.unsqueeze(0))
        all_ = x.new_empty(self.size, *x.shape)
        with self._watched():
            work = _gather(all_.view(-1), x.view(-1), self.group, async_op=True)
        self._send(GATHER, -1, (self.size - 1) * x.nbytes)
        return Pending(self, [work], all_, (x,))

    def scatter(self, parts: Tensor) -> Pending:
        """Begin to give `parts[i]` to process i; what comes is (processes, ...) of what each had for this one."""
        parts = parts.detach().contiguous()
        if self.size == 1:
            return Pending(self, [], parts)
        mine = torch.empty_like(parts)
        with self._watched():
            work = distributed.all_to_all_single(mine, parts, group=self.group, async_op=True)
        self._send(GATHER, -1, parts.nbytes // self.size * (self.size - 1))
        return Pending(self, [work], mine, (parts,))

    def send(self, x: Tensor, to: int) -> None:
        """Give x to a process, which waits for it."""
        x = x.detach().contiguous()
        with self._watched():
            work = distributed.isend(x, group=self.group, group_dst=to)
        self._send(SEND, to, x.nbytes)
        Pending(self, [work], x).wait()

    def receive(self, like: Tensor, source: int) -> Pending:
        """Begin to wait for what a process sends."""
        there = torch.empty_like(like, memory_format=torch.contiguous_format)
        with self._watched():
            work = distributed.irecv(there, group=self.group, group_src=source)
        return Pending(self, [work], there, (), [Told(RECEIVE, source, 0)])

    def turn(self, x: Tensor) -> Pending:
        """Begin to give x to the next process, in a ring, and to take that of the one before."""
        x = x.detach().contiguous()
        if self.size == 1:
            return Pending(self, [], x)
        there, after, before = torch.empty_like(x), (self.rank + 1) % self.size, (self.rank - 1) % self.size
        operations = [
            distributed.P2POp(distributed.isend, x, group=self.group, group_peer=after),
            distributed.P2POp(distributed.irecv, there, group=self.group, group_peer=before),
        ]
        with self._watched():
            works = distributed.batch_isend_irecv(operations)
        self._send(SEND, after, x.nbytes)
        return Pending(self, works, there, (x,), [Told(RECEIVE, before, 0)])

    @contextmanager
    def recorded(self) -> Iterator[list[Told]]:
        """What this process tells and hears meanwhile, for `rounds`."""
        before, self._log = self._log, []
        try:
            yield self._log
        finally:
            self._log = before

    def lost(self, error: Exception) -> PacelineError:
        """What to say where another process did not answer."""
        return PacelineError(
            f"Process {self.rank} of {self.size} waited in vain for the others ({_first_line(error)}): one has ended, "
            f"took longer than {self.patience:g} s, or holds another length; start all of them again from what was "
            "last saved."
        )

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.lost(error) from error

    def _send(self, kind: str, peer: int, nbytes: int) -> None:
        self.sent += nbytes
        self._tell(Told(kind, peer, nbytes))

    def _tell(self, *told: Told) -> None:
        if self._log is not None:
            self._log.extend(told)


def rounds(logs: list[list[Told]]) -> int:
    """Messages that had to follow one another, from the first to the last; a collective is one for all.

    Args:
        logs: of each process, by rank, of the same stretch of work.

    Raises:
        ValueError: they do not fit together.
    """
    clocks, at = [0] * len(logs), [0] * len(logs)
    mail: dict[tuple[int, int], list[int]] = {}
    while any(place < len(log) for place, log in zip(at, logs, strict=True)):
        moved = False
        for rank, log in enumerate(logs):
            while at[rank] < len(log) and log[at[rank]].kind != GATHER:
                told = log[at[rank]]
                if told.kind == SEND:
                    mail.setdefault((rank, told.peer), []).append(clocks[rank] + 1)
                elif not (waiting := mail.get((told.peer, rank))):
                    break
                else:
                    clocks[rank] = max(clocks[rank], waiting.pop(0))
                at[rank], moved = at[rank] + 1, True
        if all(place < len(log) and log[place].kind == GATHER for place, log in zip(at, logs, strict=True)):
            clocks, at, moved = [max(clocks) + 1] * len(logs), [place + 1 for place in at], True
        if not moved:
            raise ValueError("the logs are not of the same work")
    return max(clocks)


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
    return text if len(text) < 100 else text[:97] + "..."
