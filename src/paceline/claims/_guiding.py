"""Byte models that guide one another: what the claims on them share.

Models of a seed are trained once, in a folder of the race, whose name holds the digest of all code that decides.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.core.state import LM
from paceline.data._contract import Task
from paceline.lm.config import Config, build, fit
from paceline.lm.decoder import Decoder, count_parameters
from paceline.lm.train import Recipe, train
from paceline.race.contestant import Job


def shared(job: Job, name: str) -> Path:
    """Where all cells of a race and a seed find what has this name, whatever the task: name it too where it decides."""
    return job.folder.parents[3] / "shared" / f"{name}-{job.seed}"


def byte_model(job: Job, task: Task, layers: int, parameters: int, recipe: Recipe) -> tuple[Decoder, Config]:
    """A decoder of attention, trained from scratch on a task of bytes."""
    config = fit(["attention"] * layers, task.vocab_size, parameters)
    torch.manual_seed(derive(job.seed, "init", layers, parameters))
    model = build(config)
    train(model, task, recipe, derive(job.seed, "order"))
    return model, config


def bill(job: Job, model: Decoder) -> Ledger:
    """What is known without a clock: models are trained by whichever cell comes first."""
    return Ledger(tokens=job.event.tokens, parameters=count_parameters(model))


class Drawn(NamedTuple):
    """Texts that continue prompts, with what each is like under the model itself; (b,) but for the first."""

    ids: Int[Tensor, "b n"]
    kl: Float[Tensor, " b"]
    """KL divergence from the model of what each token was drawn from, in nats, summed over the text."""
    nats: Float[Tensor, " b"]
    """Of the text under the model."""


@torch.no_grad()
def draw(lm: LM, base: LM, prompts: Int[Tensor, "b t"], tokens: int, seed: int) -> Drawn:
    """Continue prompts of one length side by side at temperature 1."""
    draws = torch.Generator().manual_seed(seed)
    ids, state, plain = prompts, None, None
    made, kl = [], torch.zeros(len(prompts), dtype=torch.float64)
    nats = torch.zeros_like(kl)
    for _ in range(tokens):
        logits, state = lm(ids, state if state is not None else lm.initial_state(len(ids)))
        theirs, plain = base(ids, plain if plain is not None else base.initial_state(len(ids)))
        log_p, log_q = (said[:, -1].double().log_softmax(-1) for said in (logits, theirs))
        p = log_p.exp()
        ids = torch.multinomial(p, 1, generator=draws)
        kl = kl + torch.where(p > 0, p * (log_p - log_q), 0.0).sum(1)
        nats = nats - log_q.gather(1, ids).squeeze(1)
        made.append(ids)
    return Drawn(torch.cat(made, 1), kl, nats)
