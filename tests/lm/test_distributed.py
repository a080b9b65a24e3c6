"""Facts about one run over two processes: losses and weights are those of one process, however the work is cut up.

The file is also what the processes execute: `torchrun test_distributed.py FOLDER`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _tiny import model, recall

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.lm.checkpoint import load_training, save_training
from paceline.lm.decoder import Decoder
from paceline.lm.distributed import Replicated, World, join
from paceline.lm.train import Recipe, Trained, make_optimizer, train

KINDS = ("ddp", "fsdp")
PLANS = ("attention", "seqboat", "asked by one", "never asked")
BATCH, STEPS, STOP = 5, 6, 3  # five rows on two processes: three and two


RECIPE = Recipe(tokens=STEPS * BATCH * 12, batch=BATCH, lr=1e-2, accumulate=2)


def built(plan: str) -> Decoder:
    """As in the other tests; or with attention that only the first process's rows ask for at first, or none ever."""
    if plan not in PLANS[2:]:
        return model(plan, 7)
    lm = model("seqboat", 7)
    for mixer in lm.mixers:
        torch.nn.init.constant_(mixer.configurator.logits.bias[1], -5.0)
    if plan == "asked by one":
        head, inputs = lm.mixers[0].configurator.logits, []
        handle = head.register_forward_hook(lambda _, given, __: inputs.append(given[0]))
        with torch.no_grad():
            lm.logits(first_ids())
            handle.remove()
            leads = torch.zeros(BATCH)
            while not leads[:3].max() > leads[3:].max() + 1e-3:  # a direction that tells the first rows apart
                head.weight.copy_(torch.randn(2, 16) * 0.02)
                leads = (inputs[0] @ (head.weight[1] - head.weight[0])).amax(1)
            head.bias.copy_(torch.tensor((0.0, -(leads[:3].max() + leads[3:].max()).item() / 2)))
    return lm


def first_ids() -> torch.Tensor:
    return recall().batch(BATCH, 1, 0).ids


def run(plan: str, folder: Path | None, stop: int = STEPS + 1, world: World | None = None) -> tuple[Decoder, Trained]:
    """Train, until a Ctrl-C comes to every process when the progress of step number `stop` is told."""

    def halt(done: int, _of: int, _loss: float) -> None:
        if done == stop:
            raise KeyboardInterrupt

    lm = built(plan)
    return lm, train(lm, recall(), RECIPE, 1, folder=folder, save_seconds=0.0, progress=halt, world=world)


def stopped(folder: Path, world: World | None = None) -> None:
    with pytest.raises(KeyboardInterrupt):
        run("seqboat", folder, STOP, world)


def work(folder: Path) -> None:
    """The life of one of the processes: all of it sharded, and then replicated."""
    torch.set_num_threads(1)
    with join("fsdp") as world:
        assert isinstance(world, Replicated)
        for kind, other in {"fsdp": world, "ddp": Replicated(world.rank, world.size, world.device)}.items():
            live(folder / kind, other)


def live(folder: Path, world: World) -> None:
    """Whole runs, one that is stopped and resumed, one that another process began, and what is refused."""

    def finish(name: str, plan: str, start: str | None = None) -> None:
        lm, trained = run(plan, folder / start if start else None, world=world)
        facts = {"curve": trained.curve, "ledger": trained.ledger.to_dict()}
        save_training(folder / f"{name} {world.rank}", 0, lm.state_dict(), facts)

    for plan in PLANS:
        finish(plan, plan)
    stopped(folder / "stopped", world)
    world.agree("all have stopped")
    if world.first:
        shutil.copytree(folder / "stopped", folder / "for one")
    world.agree("copied")
    finish("resumed", "seqboat", "stopped")
    finish("continued", "seqboat", "of one")
    with pytest.raises(PacelineError, match="A batch of 1 cannot be split over 2 processes: give --batch"):
        train(built("attention"), recall(), Recipe(tokens=12, batch=1), 1, world=world)
    with pytest.raises(PacelineError, match="the second cannot"):
        world.together(lambda: refuse("the second cannot") if world.rank == 1 else None)
    with pytest.raises(PacelineError, match="do not see the same"):
        world.agree(str(world.rank))
    assert world.tell(lambda: str(world.rank)) == "0"
    adopted = world.adopt(built("seqboat"))
    groups = make_optimizer(adopted, RECIPE).param_groups
    asked = {(g["weight_decay"], g["lr"]) for g in groups}
    assert asked == {(g["weight_decay"], g["lr"]) for g in make_optimizer(built("seqboat"), RECIPE).param_groups}
    (folder / f"ended {world.rank}").touch()


def refuse(why: str) -> None:
    raise PacelineError(why)


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have done their work."""
    place = tmp_path_factory.mktemp("worked")
    for kind in KINDS:
        stopped(place / kind / "of one")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    shared = str(Path(__file__).parents[1] / "shared")
    done = subprocess.run(
        [*torchrun, __file__, str(place)], env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": shared},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return place


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, worked: Path) -> Path:
    """The same, of one kind."""
    place = worked / request.param
    assert (place / "ended 0").exists() and (place / "ended 1").exists()
    return place


def check(folder: Path, name: str, expected: tuple[Decoder, Trained]) -> None:
    """Every process ended with the weights and the losses of one process."""
    lm, trained = expected
    for rank in (0, 1):
        tensors, facts = load_training(folder / f"{name} {rank}")
        assert tensors.keys() == lm.state_dict().keys()
        for key, tensor in lm.state_dict().items():
            assert close(tensors[key], tensor, tensor.dtype, least=0.1), key
        assert [tokens for tokens, _ in facts["curve"]] == [tokens for tokens, _ in trained.curve]
        mine, other = (torch.tensor([loss for _, loss in curve]) for curve in (facts["curve"], trained.curve))
        assert close(mine, other, mine.dtype)
        for currency in ("tokens", "parameters", "state_bytes"):
            assert facts["ledger"][currency] == getattr(trained.ledger, currency)
        assert facts["ledger"]["model_calls"] == 2 * trained.ledger.model_calls
        assert facts["ledger"]["peak_bytes"] > 0


@pytest.mark.parametrize("plan", PLANS)
def test_two_processes_end_as_one_does(folder: Path, plan: str) -> None:
    expected = run(plan, None)
    check(folder, plan, expected)
    start = built(plan).state_dict()
    changed = {name for name, tensor in expected[0].state_dict().items() if not torch.equal(tensor, start[name])}
    assert len(changed) > 10
    assert any(".unit." in name for name in changed) == (plan in ("seqboat", "asked by one"))
    if plan == "attention":  # where operations do not depend on data
        assert load_training(folder / "attention 0")[1]["ledger"]["flops"] == expected[1].ledger.flops


def test_the_rows_of_one_process_alone_ask_for_attention() -> None:
    lm = built("asked by one")
    lm.logits(first_ids())
    gates = lm.mixers[0].trace()
    assert gates is not None and (gates[:3] > 0).any() and not (gates[3:] > 0).any()


def test_a_stopped_run_ends_as_if_it_had_not_been(folder: Path) -> None:
    whole, resumed = load_training(folder / "seqboat 0"), load_training(folder / "resumed 0")
    assert all(torch.equal(whole[0][name], resumed[0][name]) for name in whole[0])
    assert whole[1]["curve"] == resumed[1]["curve"]


def test_one_process_goes_on_from_the_checkpoint_of_two(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "for one", tmp_path / "run")
    lm, trained = run("seqboat", tmp_path / "run")
    tensors, facts = load_training(folder / "seqboat 0")
    assert all(close(tensor, tensors[name], tensor.dtype, least=0.1) for name, tensor in lm.state_dict().items())
    assert trained.curve[: STOP - 1] == [tuple(point) for point in facts["curve"][: STOP - 1]]


def test_two_processes_go_on_from_the_checkpoint_of_one(folder: Path) -> None:
    tensors, facts = load_training(folder / "continued 0")
    lm, trained = run("seqboat", None)
    assert all(close(tensors[name], tensor, tensor.dtype, least=0.1) for name, tensor in lm.state_dict().items())
    assert [tuple(point) for point in facts["curve"][: STOP - 1]] == trained.curve[: STOP - 1]


def test_checkpoints_of_one_and_two_processes_have_the_same_form(folder: Path) -> None:
    (one, facts), (two, others) = load_training(folder / "of one"), load_training(folder / "for one")
    assert {name: t.shape for name, t in one.items()} == {name: t.shape for name, t in two.items()}
    assert facts["identity"] == others["identity"]


@pytest.mark.parametrize(("kind", "words"), [("fsdp", "start them by `torchrun"), ("tensor", "must be ddp or fsdp")])
def test_what_one_process_cannot_be_is_refused(kind: str, words: str) -> None:
    with pytest.raises(PacelineError, match=words), join(kind):
        pass


def test_one_process_is_a_world_of_its_own() -> None:
    with join("ddp") as world:
        assert type(world) is World and (world.rank, world.size, world.first) == (0, 1, True)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
