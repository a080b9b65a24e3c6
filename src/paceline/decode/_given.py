"""What a model says of a text that is given: read as a prompt and what was generated after it would be."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.state import LM
from paceline.decode._contract import Counts, Run, Strategy
from paceline.decode._generate import check_prompt, read_prompt


def read_given(
    lm: LM, prompt: Sequence[int], given: Sequence[int], strategy: Strategy
) -> tuple[Float[Tensor, " t"], Counts]:
    """Negative log-likelihoods (t,) in nats of the tokens `given` after `prompt`, and what reading took.

    The prompt is read as `generate` reads it, then one given token at a time, as if it had been chosen: so a cache
    policy, and a strategy that moves the model's logits, act as they do in generation. The choice itself plays no part.

    Args:
        lm: any model of the protocol.
        prompt: token numbers, at least one.
        given: token numbers, at least one.
        strategy: see `generate`.

    Raises:
        PacelineError: as `generate`.
    """
    ids, counts = check_prompt(lm, [*prompt, *given]), Counts()
    run = Run(strategy.prepare(lm), ids[: len(prompt)], torch.Generator().manual_seed(0), counts, len(given))
    read_prompt(run)
    said = [run.logits]
    for token in given[:-1]:
        run.read([token])
        said.append(run.logits)
    counts.state_bytes = run.state.nbytes
    policy = getattr(run.lm, "policy", None) or getattr(run.lm, "reader", None)
    counts.more = {**strategy.meters(), **(policy.meters() if policy is not None else {})}
    losses = -torch.stack(said).log_softmax(-1)[torch.arange(len(given)), torch.tensor(list(given))]
    return losses, counts
