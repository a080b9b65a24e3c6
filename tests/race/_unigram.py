"""A contestant without a neural network, in a module of its own so that new processes can import it."""

import torch

from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.data._contract import IGNORE, Task
from paceline.race.contestant import Contestant, Event, Job, Outcome, Report


class Unigram(Contestant):
    """How often each token was seen; the setting is what is added to every count."""

    name = "unigram"
    settings = (1e6, 0.1)

    def check(self, event: Event) -> None:
        if event.task.better == "higher":
            raise PacelineError(f"{self.name} answers no questions: race it on text, not on {event.task.name}.")

    def run(self, job: Job, report: Report) -> Outcome:
        event = job.event
        steps = event.tokens // (event.batch * event.task.length)
        counts = torch.full((event.task.vocab_size,), job.setting, dtype=torch.double)
        for step in range(steps):
            batch = event.task.batch(event.batch, job.seed, step)
            counts += torch.bincount(batch.targets.flatten(), minlength=len(counts))
            report(step + 1, steps, 0.0)
        tokens = steps * event.batch * event.task.length
        return Outcome(score(event.task, counts), [(tokens, 0.0)], Ledger(tokens=tokens, parameters=len(counts)))


def score(task: Task, counts: torch.Tensor) -> list[float]:
    """Bits per token of each evaluation item under these counts."""
    targets = task.evaluation().targets
    assert (targets != IGNORE).all()
    logits = (counts / counts.sum()).log().float().expand(*targets.shape, -1)
    return task.score(logits, targets).tolist()
