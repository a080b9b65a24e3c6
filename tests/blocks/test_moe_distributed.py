"""Facts about the balancing loss over two processes: in scope `global` they are one, in scope `micro` they are two.

The file is also what the processes execute: `torchrun test_moe_distributed.py FOLDER`. The first process has the rows
of one domain and the second those of another, as where each process reads a shard of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from paceline.core.tolerances import close
from paceline.data._contract import Batch
from paceline.data.recall import Recall
from paceline.lm.checkpoint import load_training, save_training
from paceline.lm.config import Config, build
from paceline.lm.decoder import Decoder
from paceline.lm.distributed import Replicated, World, join
from paceline.lm.train import Recipe, train

BATCH, LENGTH, VOCABULARY, STEPS = 4, 12, 8, 3
KINDS = ("ddp", "fsdp")
CASES = (("global", 1), ("global", 2), ("micro", 1), ("sequence", 1))
"""Scope and passes of a step."""


class TwoDomains(Recall):
    """Whatever is drawn, the first half of a batch has tokens 0 to 3 and the second tokens 4 to 7."""

    def __init__(self) -> None:
        super().__init__()
        self.vocab_size, self.length = VOCABULARY, LENGTH

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        ids = torch.randint(VOCABULARY // 2, (size, LENGTH + 1), generator=generator)
        ids[size // 2 :] += VOCABULARY // 2
        return Batch(ids[:, :-1], ids[:, 1:])


def built(scope: str) -> Decoder:
    """A balancing loss as heavy as the task's, so that what it does shows."""
    torch.manual_seed(0)
    return build(Config(VOCABULARY, 16, 8, ("ema(dims=4)",), feed_forward=f"moe(balance=1.0, scope={scope!r})"))


def run(scope: str, passes: int, world: World | None = None) -> dict[str, Tensor]:
    """The weights after a few steps."""
    lm = built(scope)
    recipe = Recipe(tokens=STEPS * BATCH * LENGTH, batch=BATCH, lr=1e-2, accumulate=passes)
    train(lm, TwoDomains(), recipe, 1, world=world)
    return lm.state_dict()


def counts(world: World) -> dict[str, Tensor]:
    """What one layer counts and asks of this process's rows in a step of two passes."""
    found = {}
    for scope in ("global", "micro"):
        lm, batch = built(scope), TwoDomains().batch(BATCH, 1, 0)
        layer = lm.stack[0].feed_forward
        lm.begin_step()
        for number, ids in enumerate(world.rows(batch).ids.tensor_split(2)):
            lm.logits(ids)
            counted = layer._counts if scope == "global" else layer.use.sum(0, keepdim=True)
            found |= {f"{scope} {number} counts": counted, f"{scope} {number} loss": lm.auxiliary_loss().detach()}
    return found


def work(folder: Path) -> None:
    """The life of one of the processes."""
    torch.set_num_threads(1)
    with join("fsdp") as world:
        assert isinstance(world, Replicated)
        save_training(folder / f"counts {world.rank}", 0, counts(world), {})
        for kind, other in {"fsdp": world, "ddp": Replicated(world.rank, world.size, world.device)}.items():
            for scope, passes in CASES:
                save_training(folder / f"{kind} {scope} {passes} {world.rank}", 0, run(scope, passes, other), {})


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have done their work."""
    place = tmp_path_factory.mktemp("worked")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [*torchrun, __file__, str(place)], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


def alike(folder: Path, name: str, expected: dict[str, Tensor]) -> bool:
    """Whether both processes ended with these weights."""
    ended = [load_training(folder / f"{name} {rank}") for rank in (0, 1)]
    assert all(tensors.keys() == expected.keys() for tensors, _ in ended)
    return all(close(tensors[k], expected[k], torch.float32, least=0.1) for tensors, _ in ended for k in expected)


@pytest.mark.parametrize("kind", KINDS)
def test_training_on_two_processes_is_that_on_one(worked: Path, kind: str) -> None:
    """In one pass, where the frequencies are those of the whole batch; a sequence is nobody else's either way."""
    for scope in ("global", "sequence"):
        assert alike(worked, f"{kind} {scope} 1", run(scope, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_in_scope_micro_each_process_balances_its_own_rows(worked: Path, kind: str) -> None:
    """So two processes do what one does in two passes, and not what it does in one."""
    assert not alike(worked, f"{kind} micro 1", run("micro", 1))
    assert alike(worked, f"{kind} micro 1", run("micro", 2))
    assert not alike(worked, f"{kind} micro 1", run("global", 1))


@pytest.mark.parametrize("kind", KINDS)
def test_with_passes_the_first_does_not_know_the_second(worked: Path, kind: str) -> None:
    """Two processes of two passes: the first pass has a row of each domain, where one process's has two of one."""
    assert not alike(worked, f"{kind} global 2", run("global", 1))
    assert not alike(worked, f"{kind} global 2", run("global", 2))


def test_scope_sequence_is_scope_micro_in_passes_of_one_sequence() -> None:
    one, other = run("sequence", 1), run("micro", BATCH)
    assert all(close(one[name], other[name], torch.float32, least=0.1) for name in one)
    assert not all(close(one[name], tensor, torch.float32, least=0.1) for name, tensor in run("micro", 1).items())


def test_frequencies_of_two_processes_are_those_of_one_on_the_whole_batch(worked: Path) -> None:
    first, second = (load_training(worked / f"counts {rank}")[0] for rank in (0, 1))
    for number in (0, 1):
        assert torch.equal(first[f"global {number} counts"], second[f"global {number} counts"])
        assert not torch.equal(first[f"micro {number} counts"], second[f"micro {number} counts"])
    lm = built("global")
    layer, rows = lm.stack[0].feed_forward, TwoDomains().batch(BATCH, 1, 0).ids
    lm.logits(rows)
    assert torch.equal(first["global 1 counts"], layer.use.sum(0, keepdim=True))  # the last pass knows all
    lm.logits(rows[[0, 2]])
    assert torch.equal(first["global 0 counts"], layer.use.sum(0, keepdim=True))  # the first, its rows of each process
    lm.begin_step()
    lm.logits(rows[[0, 2]])
    losses = torch.stack([part["global 0 loss"] for part in (first, second)])
    assert close(losses.mean(), lm.auxiliary_loss(), torch.float32)  # P is local: the mean of both is that of one


if __name__ == "__main__":
    work(Path(sys.argv[1]))
