"""The training loop: AdamW with the parameters' own hints, warm-up and cosine, clipping, accumulation, exact resume."""

import hashlib
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.data._contract import IGNORE, Batch, Task
from paceline.lm.checkpoint import load_training, save_training
from paceline.lm.decoder import Decoder, count_parameters

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

    Raises:
        Diverged: the loss, or its gradient, is not finite.
        PacelineError: too small a budget, or checkpoints of another run in `folder`.
    """
    steps = recipe.steps(task.length)
    optimizer = make_optimizer(model, recipe)
    identity = {"recipe": asdict(recipe), "seed": seed, "task": task.describe(), "model": _fingerprint(model)}
    run = _Run(model, optimizer, identity)
    if folder is not None:
        run.restore(folder)
    every = max(1, steps // 50)
    began = saved = time.monotonic()
    for step in range(run.step, steps):
        share = recipe.rate(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        loss = _step(model, optimizer, task.batch(recipe.batch, seed, step), recipe)
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss became {loss} at step {step + 1} of {steps}: lower the learning rate ({recipe.lr:g})."
            )
        run.add(loss, (1 + BACKWARD) * model.flops(recipe.batch, task.length).total)
        if (step + 1) % every == 0 or step + 1 == steps:
            run.mark(task, (step + 1) * recipe.batch * task.length)
            if progress is not None:
                progress(step + 1, steps, run.curve[-1][1])
        if folder is not None and (time.monotonic() - saved >= save_seconds or step + 1 == steps):
            now = time.monotonic()
            run.seconds += now - began
            began = saved = now
            run.save(folder)
    ledger = Ledger(
        tokens=steps * recipe.batch * task.length,
        flops=run.flops,
        seconds=run.seconds + time.monotonic() - began,
        model_calls=steps * recipe.accumulate,
        parameters=count_parameters(model),
        state_bytes=model.state_bytes(1, task.length),
        peak_bytes=peak_memory(),
    )
    return Trained(run.curve, ledger)


def make_optimizer(model: Decoder, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with one group for each pair of weight decay and rate that the parameters ask for by `hints`."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for parameter in model.parameters():
        hints: dict[str, float] = getattr(parameter, "hints", {})
        decay = hints.get("weight_decay", recipe.weight_decay if parameter.ndim > 1 else 0.0)
        groups.setdefault((decay, hints.get("lr_scale", 1.0)), []).append(parameter)
    settings = [
        {"params": members, "weight_decay": decay, "lr": recipe.lr * scale, "peak": recipe.lr * scale}
        for (decay, scale), members in groups.items()
    ]
    return torch.optim.AdamW(settings, betas=(0.9, 0.98), fused=True)


def peak_memory() -> int:
    """Largest resident size that this process ever had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _step(model: Decoder, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe) -> float:
    """One optimizer step on the mean over the batch's asked tokens, however it is split; returns the loss in nats.

    A gradient that is not finite returns NaN: it would show in the next loss, but the last step has none.
    """
    asked = (batch.targets != IGNORE).sum()
    total = 0.0
    optimizer.zero_grad()
    chunks = (batch.ids.tensor_split(recipe.accumulate), batch.targets.tensor_split(recipe.accumulate))
    for ids, targets in zip(*chunks, strict=True):
        logits = model.logits(ids).flatten(0, 1)
        loss = functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE, reduction="sum") / asked
        loss.backward()
        total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
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

    def __init__(self, model: Decoder, optimizer: torch.optim.Optimizer, identity: dict[str, Any]) -> None:
        self.model, self.optimizer, self.identity = model, optimizer, identity
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

    def save(self, folder: Path) -> None:
        """Write weights, optimizer moments, random state and counters."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, parameter in enumerate(self._parameters()):
            for name, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{index}.{name}"] = value
        tensors["random"] = torch.get_rng_state()
        facts = {k: getattr(self, k) for k in ("flops", "seconds", "losses", "curve", "identity")}
        save_training(folder, self.step, tensors, facts)

    def restore(self, folder: Path) -> None:
        """Continue from the newest whole checkpoint, if there is one of the same run."""
        loaded = load_training(folder)
        if loaded is None:
            return
        tensors, facts = loaded
        if facts["identity"] != self.identity:
            raise PacelineError(f"{folder} holds the checkpoints of another run: choose another folder, or delete it.")
        try:
            self.model.load_state_dict(
                {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
            )
        except RuntimeError as error:
            raise PacelineError(f"{folder} holds the checkpoints of another model: choose another folder.") from error
        for index, parameter in enumerate(self._parameters()):
            prefix = f"optimizer.{index}."
            self.optimizer.state[parameter] = _by_name(tensors, prefix)
        torch.set_rng_state(tensors["random"])
        self.step, self.flops, self.seconds = facts["step"], facts["flops"], facts["seconds"]
        self.losses, self.curve = facts["losses"], [(tokens, loss) for tokens, loss in facts["curve"]]

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _by_name(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
