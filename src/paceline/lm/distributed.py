"""One training run over several processes that torchrun started, with the loss of one process.

Every process draws the whole batch B and computes on rows of its own. Its loss is the sum over its asked tokens, over
the number of asked tokens in all of B, times the number of processes n, because DDP and FSDP average gradients:

    1/n sum_r grad( n sum_{rows of r} loss / asked(B) )  =  grad( sum_B loss / asked(B) )

The result is therefore that of one process up to the order of sums, however the rows divide. A parameter that no
process used (SeqBoat's attention where no token asked for it) gets no gradient, as in one, and AdamW passes it over.
`Replicated` is DDP; FSDP2 is in `lm.sharded`.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
from torch import Tensor, distributed, nn

from paceline.core.errors import PacelineError
from paceline.data._contract import Batch
from paceline.lm.decoder import Decoder

T = TypeVar("T")
PATIENCE = timedelta(hours=1)
"""How long a process waits for another, which may be reading the text."""
WORDS = 4096
"""Bytes of a message between processes."""


class World:
    """The processes of a run. This class is the run of one process: everything is as if there was no class."""

    rank, size = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process prints, writes and measures."""
        return self.rank == 0

    def fewest(self, batch: int) -> int:
        """Rows of the process that has the fewest.

        Raises:
            PacelineError: there are more processes than rows.
        """
        if batch < self.size:
            raise PacelineError(
                f"A batch of {batch} cannot be split over {self.size} processes: give --batch at least {self.size}, "
                "or start fewer."
            )
        return batch // self.size

    def rows(self, batch: Batch) -> Batch:
        """This process's share of a batch."""
        return batch

    def adopt(self, model: Decoder) -> Decoder:
        """What is trained in the place of `model`; all processes at once, as in every method below."""
        return model

    def release(self, trained: Decoder, model: Decoder) -> None:
        """Put what was trained back into `model`, whole in every process."""

    def logits(self, trained: Decoder, ids: Tensor, prompt: int = 0) -> Tensor:
        """Logits (b, t, v) whose backward pass ends in gradients of the whole batch; see `Decoder.logits`."""
        return trained.logits(ids, prompt)

    def backward(self, loss: Tensor) -> None:
        """The backward pass of this process's part of a loss."""
        loss.backward()

    def clip(self, trained: Decoder, limit: float) -> Tensor:
        """Scale the gradient to a norm of at most `limit`; the norm before, over all processes."""
        return nn.utils.clip_grad_norm_(trained.parameters(), limit)

    def sum(self, *numbers: float) -> tuple[float, ...]:
        """Each number summed over processes."""
        return numbers

    def largest(self, number: int) -> int:
        """The largest over processes."""
        return number

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor of the model or its optimizer as one process would have it."""
        return tensor

    def part(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        """The inverse of `whole`, for an optimizer's tensor of a parameter."""
        return tensor

    def together(self, work: Callable[[], T]) -> T:
        """Do it in every process; what one cannot do is an error in all."""
        return work()

    def tell(self, work: Callable[[], str]) -> str:
        """Do it in the first process alone; all have its answer, or its error."""
        return work()

    def agree(self, text: str) -> None:
        """Make sure that all have the same text.

        Raises:
            PacelineError: they have not.
        """


class Replicated(World):
    """DDP: the whole model in every process."""

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device
        self._wrapped: nn.Module | None = None

    def rows(self, batch: Batch) -> Batch:
        """Consecutive rows; the first processes have one more where they do not divide."""
        ids, targets = (x.tensor_split(self.size)[self.rank].to(self.device) for x in (batch.ids, batch.targets))
        return Batch(ids, targets)

    def adopt(self, model: Decoder) -> Decoder:
        """The model itself, on the device."""
        trained = model.to(self.device)
        self._wrapped = nn.parallel.DistributedDataParallel(_Logits(trained), find_unused_parameters=True)
        return trained

    def release(self, trained: Decoder, model: Decoder) -> None:
        """Back to where it was."""
        self._wrapped = None
        model.cpu()

    def logits(self, trained: Decoder, ids: Tensor, prompt: int = 0) -> Tensor:
        """See `World.logits`."""
        assert self._wrapped is not None
        return self._wrapped(ids, prompt)

    def backward(self, loss: Tensor) -> None:
        """Times the number of processes, over which gradients are averaged."""
        (loss * self.size).backward()

    def sum(self, *numbers: float) -> tuple[float, ...]:
        """See `World.sum`."""
        total = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(total)
        return tuple(total.tolist())

    def largest(self, number: int) -> int:
        """See `World.largest`."""
        most = torch.tensor(number)
        distributed.all_reduce(most, distributed.ReduceOp.MAX)
        return int(most)

    def whole(self, tensor: Tensor) -> Tensor:
        """See `World.whole`."""
        return tensor.cpu()

    def part(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        """See `World.part`."""
        return tensor.to(self.device)

    def together(self, work: Callable[[], T]) -> T:
        """See `World.together`."""
        failure: PacelineError | None = None
        try:
            result = work()
        except PacelineError as error:
            failure = error
        for said in self._exchange("" if failure is None else str(failure)):
            if said:
                raise PacelineError(said) from failure
        return result

    def tell(self, work: Callable[[], str]) -> str:
        """See `World.tell`."""
        answer = self.together(lambda: work() if self.first else "")
        return self._exchange(answer)[0]

    def agree(self, text: str) -> None:
        """See `World.agree`."""
        if len(set(self._exchange(text))) > 1:
            raise PacelineError(
                "The processes of this run do not see the same text and checkpoints: share the disk of --out."
            )

    def _exchange(self, text: str) -> list[str]:
        """What every process says, by rank."""
        content = text.encode(errors="surrogateescape")[:WORDS]
        mine = torch.frombuffer(bytearray(content.ljust(WORDS, b"\0")), dtype=torch.uint8)
        said = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(said, mine)
        return [bytes(x.tolist()).rstrip(b"\0").decode(errors="surrogateescape") for x in said]


class _Logits(nn.Module):
    """A decoder whose `forward`, the one method that DDP knows, is `logits`."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model
        self.unused = nn.Parameter(torch.zeros(1))  # where nothing is, DDP warns in every process

    def forward(self, ids: Tensor, prompt: int) -> Tensor:
        return self.model.logits(ids, prompt)


@contextmanager
def join(parallel: str) -> Iterator[World]:
    """The processes among which torchrun started this one; one process where it did not.

    Only the first says why a run ends: in the others, errors that all share, Ctrl-C and the loss of a process end in a
    silent exit with a code that is not 0.

    Args:
        parallel: `ddp` or `fsdp`.

    Raises:
        PacelineError: another word, fewer GPUs than processes, or another process of the run has ended.
    """
    if not distributed.is_torchelastic_launched():
        if _kind(parallel) is not Replicated:
            raise PacelineError(
                f"--parallel {parallel} is for several processes: start them by `torchrun --nproc-per-node 2 -m "
                "paceline train ...`, or leave it out."
            )
        yield World()
        return
    try:
        place = _meet()
        yield _kind(parallel)(*place)
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # torchrun passes on what the terminal has already sent
        _leave(error)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _kind(parallel: str) -> type[Replicated]:
    if parallel not in ("ddp", "fsdp"):
        raise PacelineError(f"--parallel must be ddp or fsdp, not {parallel!r}.")
    if parallel == "ddp":
        return Replicated
    from paceline.lm.sharded import Sharded  # a second to import

    return Sharded


def _leave(error: BaseException) -> NoReturn:
    """End with the error in the first process, and without a word in the others, where the error is not their own."""
    first = os.environ["RANK"] == "0" or not distributed.is_initialized()
    lost = isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    if lost and first:
        raise PacelineError(
            "Another process of this run has ended: give --resume to continue from the last checkpoint."
        ) from error
    if not first and (lost or isinstance(error, PacelineError | KeyboardInterrupt)):
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
    raise error


def _meet() -> tuple[int, int, torch.device]:
    """Rank, number of processes and device, once all are there: a GPU each where there are any."""
    device, backend = torch.device("cpu"), "gloo"
    if torch.cuda.is_available():
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise PacelineError(f"There are {there} GPUs for more processes: give --nproc-per-node {there}.")
        device, backend = torch.device("cuda", local), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    distributed.init_process_group(backend, timeout=PATIENCE)
    return distributed.get_rank(), distributed.get_world_size(), device
