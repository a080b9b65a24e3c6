"""Training an autoregressive reward model on preferences (`decode/_reward.py`), for GenARM."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.decode._reward import preference_loss, text_reward
from paceline.lm.decoder import Decoder

Pairs = Callable[[int], tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]]
"""From the step's number to texts that were preferred, and for each the other one of the pair."""


def train_reward(
    model: Decoder,
    pairs: Pairs,
    steps: int,
    *,
    lr: float = 1e-3,
    beta: float = 0.1,
    progress: Callable[[int, int, float], None] | None = None,
) -> list[float]:
    """Train in place, so that a preferred text's log-probability exceeds the other's; the loss of each step.

    The first token of a text is its prompt: it is given, not rewarded.

    Args:
        model: begins as a language model, best one that was trained on such text.
        pairs: the data.
        steps: of AdamW, the rate falling to nothing in a line.
        lr: the rate at the beginning.
        beta: how sure a preference is for a difference of rewards.
        progress: called after each step with (steps done, steps in all, loss).

    Raises:
        PacelineError: the loss left the real numbers.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    losses = []
    model.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        preferred, other = (text_reward(model.logits(ids[:, :-1]), ids[:, 1:]) for ids in pairs(step))
        loss = preference_loss(preferred, other, beta)
        if not torch.isfinite(loss):
            raise PacelineError(f"The preference loss is {loss.item()} at step {step}: give a lower rate than {lr}.")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if progress is not None:
            progress(step + 1, steps, losses[-1])
    model.eval()
    return losses
