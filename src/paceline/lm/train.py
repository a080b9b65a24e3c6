"""The training loop: optimizers by hints, warm-up and cosine, clipping, accumulation, exact resume."""

import hashlib
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from paceline.core.discovery import find, part
from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.core.spec import check, parse
from paceline.data._contract import IGNORE, Batch, Task
from paceline.lm.checkpoint import load_training, save_training
from paceline.lm.decoder import Decoder, count_parameters
from paceline.lm.distributed import World
from paceline.optim._contract import Matrixwise

BACKWARD = 2.0
"""A backward pass in forwards: one product for the inputs' gradient, one for the weights'."""


class Diverged(PacelineError):
    """The loss or its gradient left the real numbers."""


@dataclass(frozen=True)
class Recipe:
    """How to train. The stop is in tokens."""

    tokens: int
    batch: int = 8
    """Sequences of a step."""
    lr: float = 3e-3
    """Peak learning rate; a parameter's `lr_scale` hint multiplies it."""
    warmup: float = 0.1
    """Share of the steps with a rising rate; then a cosine."""
    last_lr: float = 0.1
    """Rate at the end, as a share of the peak."""
    weight_decay: float = 0.1
    """On matrices; vectors, and parameters hinted otherwise, have none."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    accumulate: int = 1
    """Passes that a step's sequences are split into, to save memory."""
    optimizer: str | type[torch.optim.Optimizer] = "adamw"
    """One of the family `optim`, such as `soap(every=20)`, or a class of that kind."""

    def steps(self, length: int) -> int:
        """Optimizer steps on sequences of `length` tokens.

        Raises:
            PacelineError: the tokens do not pay for one step, or a setting makes no sense.
        """
        if not (math.isfinite(self.lr) and self.lr > 0 and self.batch > 0 and 1 <= self.accumulate <= self.batch):
            raise PacelineError(f"Cannot train with lr={self.lr}, batch={self.batch}, accumulate={self.accumulate}.")
        count = self.tokens // (self.batch * length)
        if count < 1:
            raise PacelineError(
                f"A budget of {self.tokens:,} tokens is too small for one step of {self.batch} x {length}: "
                f"give at least {self.batch * length:,}."
            )
        return count

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step number `step` (from 0), as a share of the peak."""
        rise = (step + 1) / max(1.0, self.warmup * steps)
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return min(1.0, rise) * (self.last_lr + (1 - self.last_lr) * cosine)


@dataclass(frozen=True)
class Trained:
    """What a training run leaves besides the model."""

    curve: list[tuple[int, float]]
    """(tokens, mean training loss since the last point, in the task's loss unit)."""
    ledger: Ledger
    meters: dict[str, float] = field(default_factory=dict)
    """The optimizer's, if it has any."""


Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""


def train(
    model: Decoder,
    task: Task,
    recipe: Recipe,
    seed: int,
    *,
    folder: Path | None = None,
    save_seconds: float = 60.0,
    progress: Progress | None = None,
    world: World | None = None,
) -> Trained:
    """Train `model` in place; batch number n is a function of `seed` and n alone.

    Args:
        model: changed in place.
        task: where the batches come from.
        recipe: how long and how fast.
        seed: of the data order.
        folder: where checkpoints go and where an interrupted run is continued from, bit for bit. Default: none.
        save_seconds: time between checkpoints.
        progress: called about fifty times, and after the last step.
        world: the processes that train together, each of which calls this with the same arguments; see
            `lm.distributed`. Default: this one alone.

    The ledger is that of all processes together, but for `seconds`, by the clock on the wall, and `peak_bytes`, those
    of the largest process. Operations that depend on data are those executed, so they may differ with the split.

    Raises:
        Diverged: the loss, or its gradient, is not finite.
        PacelineError: too small a budget, or checkpoints of another run in `folder`.
    """
    world = World() if world is None else world
    steps, passes = recipe.steps(task.length), min(recipe.accumulate, world.fewest(recipe.batch))
    identity = {
        "recipe": asdict(recipe) | {"optimizer": str(recipe.optimizer)},
        "seed": seed,
        "task": task.describe(),
        "model": _fingerprint(model),
    }
    run = _Run(model, {**identity, "moments": "by name"})
    moments = {} if folder is None else world.together(lambda: run.restore(folder))
    world.agree(run.fingerprint())
    trained = world.adopt(model)
    optimizer = make_optimizer(trained, recipe)
    for name, parameter in trained.named_parameters():
        if state := _by_name(moments, f"optimizer.{name}."):
            optimizer.state[parameter] = {key: world.part(value, parameter) for key, value in state.items()}
    every = max(1, steps // 50)
    began = saved = time.monotonic()
    for step in range(run.step, steps):
        share = recipe.rate(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        batch = task.batch(recipe.batch, seed, step)
        mine, asked = world.rows(batch), (batch.targets != IGNORE).sum()
        part = _step(trained, optimizer, mine, asked, passes, recipe, world, task.prompt)
        spent = (1 + BACKWARD) * trained.flops(len(mine.ids), task.length).total
        due = world.first and time.monotonic() - saved >= save_seconds
        loss, flops, save = world.sum(part, spent, float(due))
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss became {loss} at step {step + 1} of {steps}: lower the learning rate ({recipe.lr:g})."
            )
        run.add(loss, flops)
        if (step + 1) % every == 0 or step + 1 == steps:
            run.mark(task, (step + 1) * recipe.batch * task.length)
            if progress is not None:
                progress(step + 1, steps, run.curve[-1][1])
        if folder is not None and (save or step + 1 == steps):
            now = time.monotonic()
            run.seconds += now - began
            began = saved = now
            run.save(folder, trained, optimizer, world)
    world.release(trained, model)
    ledger = Ledger(
        tokens=steps * recipe.batch * task.length,
        flops=run.flops,
        seconds=run.seconds + time.monotonic() - began,
        model_calls=steps * passes * world.size,
        parameters=count_parameters(model),
        state_bytes=model.state_bytes(1, task.length),
        peak_bytes=world.largest(peak_memory()),
    )
    return Trained(run.curve, ledger, getattr(optimizer, "meters", dict)())


def make_optimizer(model: Decoder, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's, with one group for each pair of weight decay and rate that the parameters ask for by `hints`.

    Raises:
        PacelineError: there is no such optimizer or setting, or it needs whole matrices where they are sharded.
    """
    kind: Any = recipe.optimizer
    arguments: Mapping[str, Any] = {}
    if isinstance(kind, str):
        spec = parse(kind)
        kind, arguments = part("optim", find(spec.name, "optim")[1]), spec.arguments
        check(spec, kind, given=("params", "lr", "weight_decay"))
    groups: dict[
        tuple[float, float, type, bool], list[torch.nn.Parameter]
    ] = {}  # an operation takes one type: see FSDP
    for parameter in model.parameters():
        if type(parameter) is not torch.nn.Parameter and issubclass(kind, Matrixwise):
            raise PacelineError(f"{kind.__name__} needs whole matrices, and they are sharded: take --parallel ddp.")
        hints: dict[str, float] = getattr(parameter, "hints", {})
        decay = hints.get("weight_decay", recipe.weight_decay if parameter.ndim > 1 else 0.0)
        matrices = getattr(kind, "embeddings", True) or parameter is not model.embedding.weight
        groups.setdefault((decay, hints.get("lr_scale", 1.0), type(parameter), matrices), []).append(parameter)
    settings = [
        {
            "params": members, "weight_decay": decay, "lr": recipe.lr * scale, "peak": recipe.lr * scale,
            "matrices": matrices,
        }
        for (decay, scale, _, matrices), members in groups.items()
    ]  # fmt: skip
    made: torch.optim.Optimizer = kind(settings, **arguments)
    return made


def reset_peak_memory() -> None:
    """Begin `peak_memory` anew from what this process holds now, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Largest resident size that this process had since it began, or since `reset_peak_memory`, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _step(
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    mine: Batch,
    asked: Tensor,
    passes: int,
    recipe: Recipe,
    world: World,
    prompt: int,
) -> float:
    """One optimizer step on the mean over the batch's asked tokens, however it is split; this process's part, in nats.

    The parts' auxiliary losses are averaged over the batch's sequences and not reported. A gradient that is not finite
    returns NaN: it would show in the next loss, but the last step has none.
    """
    total = 0.0
    optimizer.zero_grad()
    model.begin_step()
    for ids, targets in zip(mine.ids.tensor_split(passes), mine.targets.tensor_split(passes), strict=True):
        logits = world.logits(model, ids, prompt).flatten(0, 1)
        loss = functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE, reduction="sum") / asked
        total += loss.item()
        if (auxiliary := model.auxiliary_loss()) is not None:
            loss = loss + auxiliary * (len(ids) / recipe.batch)
        world.backward(loss)
    norm = world.clip(model, recipe.clip)
    optimizer.step()
    return total if norm.isfinite() else math.nan


def _fingerprint(model: Decoder) -> str:
    """Digest of the kinds of modules and their public settings: a window of 4 and one of 8 have the same shapes."""
    modules = []
    for name, module in model.named_modules():
        public = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
        settings = sorted((k, v) for k, v in public.items() if isinstance(v, (int, float, str)))
        modules.append((name, type(module).__name__, settings))
    return hashlib.sha256(repr(modules).encode()).hexdigest()


class _Run:
    """Everything that must survive an interruption."""

    def __init__(self, model: Decoder, identity: dict[str, Any]) -> None:
        self.model, self.identity = model, identity
        self.step, self.flops, self.seconds = 0, 0.0, 0.0
        self.losses: list[float] = []
        self.curve: list[tuple[int, float]] = []

    def add(self, loss: float, flops: float) -> None:
        """Count one step."""
        self.step += 1
        self.flops += flops
        self.losses.append(loss)

    def mark(self, task: Task, tokens: int) -> None:
        """One point of the learning curve: the mean since the last."""
        self.curve.append((tokens, task.in_loss_unit(sum(self.losses) / len(self.losses))))
        self.losses = []

    def fingerprint(self) -> str:
        """Digest of what is trained, and from which step on."""
        return hashlib.sha256(json.dumps([self.identity, self.step]).encode()).hexdigest()

    def save(self, folder: Path, trained: Decoder, optimizer: torch.optim.Optimizer, world: World) -> None:
        """Write weights, optimizer moments, random state and counters: by names, as one process would have them."""
        parts = {f"model.{name}": tensor for name, tensor in trained.state_dict().items()}
        for name, parameter in trained.named_parameters():
            parts |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state.get(parameter, {}).items()}
        tensors = {"random": torch.get_rng_state()}
        for name, tensor in parts.items():
            whole = world.whole(tensor)
            if world.first:  # the others only help
                tensors[name] = whole
        if not world.first:
            return
        facts = {k: getattr(self, k) for k in ("flops", "seconds", "losses", "curve", "identity")}
        save_training(folder, self.step, tensors, facts)

    def restore(self, folder: Path) -> dict[str, Tensor]:
        """Continue from the newest whole checkpoint, if there is one of the same run; what it has for the optimizer."""
        loaded = load_training(folder)
        if loaded is None:
            return {}
        tensors, facts = loaded
        if facts["identity"] != self.identity:
            raise PacelineError(f"{folder} holds the checkpoints of another run: choose another folder, or delete it.")
        try:
            self.model.load_state_dict(_by_name(tensors, "model."))
        except RuntimeError as error:
            raise PacelineError(f"{folder} holds the checkpoints of another model: choose another folder.") from error
        torch.set_rng_state(tensors["random"])
        self.step, self.flops, self.seconds = facts["step"], facts["flops"], facts["seconds"]
        self.losses, self.curve = facts["losses"], [(tokens, loss) for tokens, loss in facts["curve"]]
        return tensors


def _by_name(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """In the order of names, so that all processes gather them in the same order: a loaded file has none."""
    return {name.removeprefix(prefix): tensors[name] for name in sorted(tensors) if name.startswith(prefix)}
