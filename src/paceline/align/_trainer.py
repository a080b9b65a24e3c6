"""The loops of alignment: rounds of writing and learning, and passes over preferences."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.align._advantages import advantages, whitened
from paceline.align._contract import Online, Pairwise, Steps, mean
from paceline.align._rollout import Reward, Tokens, batch, log_probabilities, rewards_of, write, writer
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.lm.decoder import Decoder


@dataclass(frozen=True)
class Plan:
    """How much is written and learned.

    Raises:
        PacelineError: a number below 1, or a rate that is not above 0.
    """

    rounds: int = 12
    texts: int = 64
    """Written in a round."""
    tokens: int = 48
    """Of a text, at most."""
    epochs: int = 2
    """Passes over what a round wrote, or over all preferences."""
    batch: int = 16
    """Texts, or pairs, of a step."""
    lr: float = 3e-4
    decay: float = 0.95
    """Of generalised advantage estimation."""
    value_share: float = 0.5
    """Of the critic's squared error in the loss."""

    def __post_init__(self) -> None:
        for name in ("rounds", "texts", "tokens", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise PacelineError(f"Aligning needs {name} of at least 1, not {getattr(self, name)}.")
        if not self.lr > 0:
            raise PacelineError(f"The learning rate must be above 0, not {self.lr}.")


@dataclass(frozen=True)
class Round:
    """What a round wrote, before it learned from that."""

    number: int
    reward: float
    """Mean."""
    kl: float
    """Divergence from the model as it was, in nats a text, estimated from what was written."""
    entropy: float
    """In nats a token."""
    loss: float
    """Of the last step."""


class Critic(nn.Module):
    """What reward is to be expected before each token: a copy of the model, its logits summed up."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.out = nn.Linear(model.vocab_size, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b m"]:
        """Before each token after the first, m = n - 1."""
        logits = self.model.logits(ids)[:, :-1].float()
        values: Tensor = self.out(functional.layer_norm(logits, logits.shape[-1:])).squeeze(-1)
        return values


@dataclass(frozen=True)
class Written:
    """What a round wrote, padded, with what is learned from it; (b, t) but for the tokens (b, t + 1)."""

    ids: Tensor
    steps: Steps
    returns: Tensor
    """What the critic should have expected."""


def improve(
    model: Decoder,
    prompts: Sequence[Tokens],
    reward: Reward,
    objective: Online,
    plan: Plan,
    seed: int = 0,
    ends: Sequence[int] = (),
    progress: Callable[[Round], None] | None = None,
) -> list[Round]:
    """Train in place on what the model writes.

    Args:
        model: any with `logits` and the protocol of decoding; a copy of it is the reference, another the critic.
        prompts: of which each round draws.
        reward: see `Reward`. It is divided by its standard deviation over all that was written so far.
        objective: of the family.
        plan: sizes.
        seed: of what is drawn.
        ends: tokens that end a text.
        progress: is told of each round.

    Raises:
        PacelineError: the reward fails, a prompt is empty, or the loss leaves the real numbers.
    """
    if not prompts:
        raise PacelineError("There is no prompt: give at least one.")
    reference = copy.deepcopy(model).requires_grad_(False)
    critic = Critic(model)
    trained = [*(p for p in model.parameters() if p.requires_grad), *critic.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=plan.lr, betas=(0.9, 0.95), weight_decay=0.0)
    rounds: list[Round] = []
    seen: list[Tensor] = []
    for number in range(plan.rounds):
        draws = torch.Generator().manual_seed(derive(seed, "round", number))
        asked = [list(prompts[i]) for i in torch.randint(len(prompts), (plan.texts,), generator=draws).tolist()]
        texts = write(writer(model), asked, plan.tokens, derive(seed, "texts", number), ends)
        scores = rewards_of(reward, asked, texts)
        seen.append(scores)
        ids, mask = batch(asked, texts)
        with torch.no_grad():
            (old, entropy), (plain, _) = log_probabilities(model, ids), log_probabilities(reference, ids)
            scaled = scores / torch.cat(seen).std(correction=0).clamp_min(1e-6)
            last = mask & ~functional.pad(mask[:, 1:], (0, 1))
            rewards = last * scaled.unsqueeze(1) - objective.price * (old - plain) * mask
            values = critic(ids)
            found = advantages(rewards, values, mask, plan.decay)
        made = Written(ids, Steps(old, plain, whitened(found, mask), mask), found + values)
        loss = _learn(model, critic, made, objective, plan, optimizer, trained, draws)
        kl = ((old - plain) * mask).sum(1).mean()
        rounds.append(Round(number, scores.mean().item(), kl.item(), mean(entropy, mask).item(), loss))
        if progress is not None:
            progress(rounds[-1])
    return rounds


def _learn(
    model: Decoder,
    critic: Critic,
    made: Written,
    objective: Online,
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    trained: Sequence[Tensor],
    draws: torch.Generator,
) -> float:
    """Steps on what a round wrote; the last loss."""
    loss = torch.tensor(torch.nan)
    for _ in range(plan.epochs):
        for chosen in torch.randperm(len(made.ids), generator=draws).split(plan.batch):
            mask = made.steps.mask[chosen]
            width = int(mask.any(0).nonzero().max()) + 1  # what is padding for all is not read
            mask, ids = mask[:, :width], made.ids[chosen, : width + 1]
            old, plain, found, returns = (
                x[chosen, :width] for x in (made.steps.old, made.steps.reference, made.steps.advantages, made.returns)
            )
            policy, _ = log_probabilities(model, ids)
            surprise = mean((critic(ids) - returns).square(), mask)
            loss = objective.loss(policy, Steps(old, plain, found, mask)) + plan.value_share * surprise
            _step(loss, optimizer, trained)
    return loss.item()


@dataclass(frozen=True)
class Pair:
    """Two texts after one prompt, as tokens."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def prefer(
    model: Decoder,
    pairs: Sequence[Pair],
    objective: Pairwise,
    plan: Plan,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
) -> list[float]:
    """Train in place on preferences; the loss of each step.

    Args:
        model: any with `logits`; a copy of it is the reference.
        pairs: the preferences.
        objective: of the family.
        plan: its epochs, batch and rate count.
        seed: of the order.
        progress: is told (steps done, steps in all, loss).

    Raises:
        PacelineError: there are no pairs, a prompt is empty, or the loss leaves the real numbers.
    """
    if not pairs or not all(pair.prompt for pair in pairs):
        raise PacelineError("There is no preference, or one without a prompt: give pairs of texts after a prompt.")
    reference = copy.deepcopy(model).requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=plan.lr, betas=(0.9, 0.95), weight_decay=0.0)
    draws = torch.Generator().manual_seed(derive(seed, "pairs"))
    order = [c for _ in range(plan.epochs) for c in torch.randperm(len(pairs), generator=draws).split(plan.batch)]
    losses: list[float] = []
    for chosen in order:
        here = [pairs[i] for i in chosen.tolist()]
        ids, mask = batch([p.prompt for p in here] * 2, [p.chosen for p in here] + [p.rejected for p in here])
        with torch.no_grad():
            plain, _ = log_probabilities(reference, ids)
        policy, _ = log_probabilities(model, ids)
        better, worse = ((policy - plain) * mask).sum(1).chunk(2)
        loss = objective.loss(better, worse)
        _step(loss, optimizer, trained)
        losses.append(loss.item())
        if progress is not None:
            progress(len(losses), len(order), losses[-1])
    return losses


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, trained: Sequence[Tensor]) -> None:
    if not torch.isfinite(loss):
        raise PacelineError(f"The loss is {loss.item()}: give a lower learning rate.")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
