"""Who can race: anything with a name, a few settings to choose from, and a way to be trained and measured."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.core.spec import Spec, parse
from paceline.data._contract import Task
from paceline.lm.checkpoint import save_model
from paceline.lm.config import Config, build, check_length, fit
from paceline.lm.decoder import Decoder
from paceline.lm.evaluate import Evaluation, evaluate
from paceline.lm.train import Recipe, make_optimizer, train

Report = Callable[[int, int, float], None]
"""(steps done, steps in all, loss)."""

TRACED = 0
"""The evaluation item whose gates are shown."""


@dataclass(frozen=True)
class Event:
    """One task of a race, and what a contestant may spend on it."""

    task: Task
    tokens: int
    """Training tokens of a cell."""
    parameters: int
    """Size that every contestant's model is matched to."""
    batch: int
    """Sequences of a step."""


@dataclass(frozen=True)
class Job:
    """One cell: one contestant, one event, one seed, one setting."""

    event: Event
    seed: int
    setting: float
    """The learning rate, or whatever the contestant searches."""
    folder: Path
    """Where the cell may keep checkpoints; removed when it is done."""
    model_folder: Path | None = None
    """Where to save the model, if it is wanted."""


@dataclass(frozen=True)
class Outcome:
    """What came of a job."""

    items: list[float]
    """The metric on each evaluation item; the score is their mean."""
    curve: list[tuple[int, float]]
    ledger: Ledger
    """What it took to be trained or applied, from the first step on: warm-up and compilation are in it."""
    meters: dict[str, float] = field(default_factory=dict)
    trace: dict[str, object] | None = None
    evaluation: Ledger = field(default_factory=Ledger)
    """What it took to measure, where that is known apart."""


class Contestant(ABC):
    """A contestant of any kind. It crosses into other processes, so it must pickle: define it in a module."""

    name: str
    settings: tuple[float, ...] = (3e-3,)
    """What the equal search chooses from, such as learning rates."""

    def check(self, event: Event) -> None:  # noqa: B027 - most kinds have nothing to refuse
        """Refuse an event that cannot work, before anything runs.

        Raises:
            PacelineError: with the reason.
        """

    def identity(self) -> list[object]:
        """What, besides its name, makes its records its own, as JSON: other values are another race."""
        return list(self.settings)

    @abstractmethod
    def run(self, job: Job, report: Report) -> Outcome:
        """Train or apply, then measure on `job.event.task`. Called in a process of its own."""


class Model(Contestant):
    """A decoder around a mixer, trained from scratch.

    Args:
        spec: the mixer, e.g. `attention(window=64)`.
        layers: layers of the decoder, all alike.
        rates: learning rates to choose from.
        form: `decoder`, or `encoder` for tasks with one answer.
        feed_forward: the block after each mixer.
        optimizer: of the family `optim`.
        change: rewrites or wraps the freshly built decoder in place: a technique, or a sham. A module's function. The
            changed model is raced and measured, not saved.
        name: for the tables. Default: the mixer, and the name of the change.
    """

    def __init__(
        self,
        spec: str | Spec,
        layers: int = 2,
        rates: tuple[float, ...] = (2e-3, 5e-3, 1.2e-2),
        change: Callable[[Decoder], None] | None = None,
        name: str | None = None,
        form: str = "decoder",
        feed_forward: str = "swiglu",
        optimizer: str | type[torch.optim.Optimizer] = "adamw",
    ) -> None:
        self.spec = parse(spec) if isinstance(spec, str) else spec
        self.layers, self.settings, self.change = layers, rates, change
        self.form, self.feed_forward, self.optimizer = form, feed_forward, optimizer
        given = ((feed_forward, "swiglu"), (optimizer, "adamw"))
        parts = [str(self.spec), *(str(value) for value, usual in given if value != usual)]
        self.name = name or ", ".join(parts if change is None else [*parts, change.__name__])

    def config(self, event: Event) -> Config:
        """The decoder's sizes for this event."""
        plan, task = [str(self.spec)] * self.layers, event.task
        return fit(plan, task.vocab_size, event.parameters, task.name, self.form, self.feed_forward)

    def identity(self) -> list[object]:
        """See `Contestant.identity`."""
        known: list[object] = [*self.settings, f"{self.layers} layers"]
        if self.name != str(self.spec):
            known.append(str(self.spec))
        if self.change is not None:
            known.append(f"{self.change.__module__}.{self.change.__qualname__}")
        shape = (self.form, self.feed_forward, self.optimizer)
        return known + [str(given) for given in shape if given not in ("decoder", "swiglu", "adamw")]

    def check(self, event: Event) -> None:
        """See `Contestant.check`."""
        if self.form == "encoder" and not event.task.one_answer:
            raise PacelineError(f"An encoder gives one answer a sequence, and {event.task.name} asks for more.")
        config = self.config(event)
        check_length(config, event.task.length)
        with torch.device("meta"):
            make_optimizer(build(config), self._recipe(event, self.settings[0]))
        self._recipe(event, self.settings[0]).steps(event.task.length)

    def run(self, job: Job, report: Report) -> Outcome:
        """See `Contestant.run`."""
        task = job.event.task
        config = self.config(job.event)
        torch.manual_seed(derive(job.seed, "init", str(self.spec)))
        model = build(config)
        if self.change is not None:
            self.change(model)
        trained = train(model, task, self._recipe(job.event, job.setting), job.seed, folder=job.folder, progress=report)
        evaluation = evaluate(model, task)
        if job.model_folder is not None and self.change is None:
            save_model(model, config, job.model_folder)
        return Outcome(
            evaluation.items, trained.curve, trained.ledger, evaluation.meters | trained.meters,
            _trace(task, evaluation), evaluation.ledger,
        )  # fmt: skip

    def _recipe(self, event: Event, rate: float) -> Recipe:
        return Recipe(tokens=event.tokens, batch=event.batch, lr=rate, optimizer=self.optimizer)


def _trace(task: Task, evaluation: Evaluation) -> dict[str, object] | None:
    """The gates on one evaluation item, for the page."""
    if not evaluation.gates:
        return None
    ids = task.evaluation().ids[TRACED]
    layers = [
        {"layer": i, "gates": [round(g, 4) for g in gates[TRACED].tolist()]} for i, gates in enumerate(evaluation.gates)
    ]
    return {"tokens": task.show(ids), "layers": layers}
