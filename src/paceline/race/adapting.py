"""Ways to adapt a given model to the user's text, side by side: equal tokens, learning rates searched alike.

Every cell opens the model, applies the adapter, trains what it chose in the one loop, merges, and measures held-out
text in bits per byte, so what is measured is what would be kept. The model as it was races too, with nothing to train.
Besides the ledger (numbers trained, seconds, operations counted in a step, largest memory) the meters tell which share
of the model was trained, what it takes to keep, and what the adapter did.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch

from paceline.adapt._contract import Adapter, Coverage, trainable
from paceline.core.discovery import find, methods, part
from paceline.core.files import write_json
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.core.spec import Spec, check, parse
from paceline.data._contract import Task
from paceline.lm.adapted import Ready, flops_per_token, ready, shell
from paceline.lm.evaluate import evaluate
from paceline.lm.siblings import known_or_folder
from paceline.lm.train import Recipe, train
from paceline.race.contestant import Contestant, Event, Job, Outcome, Report

BASE = "base"
"""The model as it was."""
ADAPTER = "adapter"
"""Folder of the adapter, beside the model that it was merged into."""
ROWS = 4
"""Sequences that are measured at a time: a row of logits is as wide as the vocabulary."""
COUNTED = 32
"""Tokens on which a training step's operations are counted."""
DECAY = 0.01
"""Weight decay, as in the paper of LoRA."""


def adapter(text: str) -> Adapter:
    """The adapter that `text` names, such as `lora(rank=4)`; a name may be cut short where that fits one alone.

    Raises:
        PacelineError: no such adapter or argument, or a setting out of its range.
    """
    spec = parse(text)
    fits = [name for name in methods("adapt") if name.startswith(spec.name)]
    name = find(spec.name if spec.name in fits or len(fits) != 1 else fits[0], "adapt")[1]
    kind = part("adapt", name)
    check(Spec(name, spec.arguments), kind)
    made: Adapter = kind(**spec.arguments)
    return made


class Adapted(Contestant):
    """The model after an adapter was trained on the task.

    Args:
        name: the adapter, as `adapter` reads it, or `base`: nothing is trained.
        model: the model's folder, or its name.
        rates: learning rates to choose from. Default: the adapter's own.
        keeps: whether a cell that is told where saves its model there, merged, and the adapter in `adapter` inside.
        how: the adapter, where the name does not tell it, such as a sham.
    """

    def __init__(
        self,
        name: str,
        model: str,
        rates: tuple[float, ...] = (),
        keeps: bool = False,
        how: Adapter | None = None,
    ) -> None:
        self.name, self.model, self.keeps, self.how = name, model, keeps, how
        self.settings = (0.0,) if name == BASE else rates or (how or adapter(name)).rates

    def identity(self) -> list[object]:
        """See `Contestant.identity`."""
        kind = [] if self.how is None else [f"{type(self.how).__qualname__} {vars(self.how)}"]
        return [*self.settings, self.model, *kind]

    def check(self, event: Event) -> None:
        """See `Contestant.check`."""
        if self.name != BASE:
            self._recipe(event, self.settings[0]).steps(event.task.length)
            (self.how or adapter(self.name)).apply(shell(self.model))

    def run(self, job: Job, report: Report) -> Outcome:
        """See `Contestant.run`."""
        task = job.event.task
        if self.name == BASE:
            return Outcome(_as_it_was(self.model, task), [], Ledger(), {"trained_share": 0.0, "kept_mib": 0.0})
        given = ready(self.model)
        torch.manual_seed(derive(job.seed, "init"))
        how = self.how or adapter(self.name)
        coverage = how.apply(given.inner)
        each = flops_per_token(given.model, task.batch(1, job.seed, 0).ids[:, :COUNTED])
        trained = train(given.model, task, self._recipe(job.event, job.setting), job.seed, progress=report)
        meters = {**_meters(given, how, coverage), **trained.meters}
        if self.keeps and job.model_folder is not None:
            how.save(given.inner, job.model_folder / ADAPTER, prefix=given.prefix, base=str(given.folder))
        how.finish(given.inner)
        found = evaluate(given.model, task, ROWS)
        if self.keeps and job.model_folder is not None:
            given.save(job.model_folder)
        bill = replace(trained.ledger, flops=each * trained.ledger.tokens)
        return Outcome(found.items, trained.curve, bill, meters, None, found.ledger)

    def _recipe(self, event: Event, rate: float) -> Recipe:
        return Recipe(tokens=event.tokens, batch=event.batch, lr=rate, weight_decay=DECAY)


def _as_it_was(place: str, task: Task) -> list[float]:
    """The score of each item, measured once beside the text: it is the same for every seed."""
    folder = known_or_folder(place)
    stamps = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.safetensors"))
    ]
    digest = hashlib.sha256(repr((stamps, task.describe(), task.items)).encode()).hexdigest()[:12]
    kept = Path(getattr(task, "folder", folder)) / f"base-{digest}.json"
    try:
        found: list[float] = json.loads(kept.read_text(encoding="utf-8"))["items"]
    except (OSError, ValueError, KeyError, TypeError):
        found = evaluate(ready(place).model, task, ROWS).items
        write_json(kept, {"items": found})
    return found


def _meters(given: Ready, how: Adapter, coverage: Coverage) -> dict[str, float]:
    kept = sum(p.numel() * p.element_size() for p in trainable(given.inner).values())
    return {
        "coverage": coverage.share,
        "trained_share": coverage.trained_share,
        "kept_mib": kept / 2**20,
        **how.meters(given.inner),
    }
