"""Measuring a model on a task, and what it did there."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from paceline.core.ledger import Ledger
from paceline.data._contract import Task
from paceline.lm.decoder import Decoder


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model, item by item."""

    items: list[float]
    """The metric on each sequence; the score is their mean."""
    meters: dict[str, float]
    """What each layer did, over all items."""
    gates: list[Tensor]
    """Per layer that chooses tokens, its gates (items, t)."""
    ledger: Ledger

    @property
    def score(self) -> float:
        """The metric, every sequence counted alike."""
        return sum(self.items) / len(self.items)


@torch.no_grad()
def evaluate(model: Decoder, task: Task, batch: int = 32) -> Evaluation:
    """The task's metric on its fixed items."""
    began = time.monotonic()
    data = task.evaluation()
    items: list[float] = []
    gates: dict[int, list[Tensor]] = {}
    read: dict[str, float] = {}
    flops = 0.0
    was_training = model.training
    model.eval()
    for ids, targets in zip(data.ids.split(batch), data.targets.split(batch), strict=True):
        items += task.score(model.logits(ids, task.prompt), targets).tolist()
        flops += model.flops(*ids.shape).total
        for name, value in model.meters().items():
            read[name] = read.get(name, 0.0) + value * len(ids) / len(data.ids)
        for index, trace in model.traces().items():
            gates.setdefault(index, []).append(trace)
    model.train(was_training)
    whole = {index: torch.cat(parts) for index, parts in gates.items()}
    meters = read | {f"activated.{index}": (g > 0).float().mean().item() for index, g in whole.items()}
    ledger = Ledger(
        tokens=data.ids.numel(), flops=flops, seconds=time.monotonic() - began, model_calls=-(-len(data.ids) // batch)
    )
    return Evaluation(items, meters, [whole[i] for i in sorted(whole)], ledger)
