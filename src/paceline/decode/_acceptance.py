"""A head that foresees whether a guess will be accepted, and its training, as in SpecDec++.

    h -> h + SiLU(W h + b), some times;  (l_0, l_1) = W' h + b';  P(accepted) = softmax(l_0, l_1)_1

with h (d,) what the draft model's output matrix reads of a guess. Trained on continuations X of prompts by the target:
the draft draws Y_i after the prompt and X_<i, whose chance is a_i = min(1, p(Y_i) / q(Y_i)). The draft then reads Z,
which is X_i for a share `mix` of the places and Y_i elsewhere, so that it sees its own guesses, and there

    loss = sum_i [w (1 - a_i)(-ln P_0) + a_i (-ln P_1)] / sum_i [w (1 - a_i) + a_i]

over the places with Y_i; w > 1 weighs refusals more. The draft stays as it is. The authors' released heads repeat one
block, ours has its own weights in each: theirs is a case of ours.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.files import write_atomic
from paceline.core.layered import Layered, read_layers
from paceline.core.seeds import derive
from paceline.core.state import LM
from paceline.decode._choice import Choice
from paceline.decode._contract import Stepwise, compatible
from paceline.decode._generate import generate


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.silu(self.linear(x))


class AcceptanceHead(nn.Module):
    """See above.

    Args:
        width: numbers d of a hidden state.
        blocks: residual blocks.
        seed: of the initial weights.
    """

    def __init__(self, width: int, blocks: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.width = width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "acceptance head"))
            self.model = nn.Sequential(*(_Block(width) for _ in range(blocks)), nn.Linear(width, 2))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b 2"]:
        """Logits of refusal and of acceptance."""
        logits: Tensor = self.model(x.float())
        return logits

    def acceptance(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """The probability of acceptance."""
        with torch.no_grad():
            return self(x).softmax(-1)[..., 1]

    def save(self, path: Path) -> None:
        """Write it as safetensors, named as in the authors' checkpoints."""
        write_atomic(path, save(self.state_dict()))

    @staticmethod
    def load(path: Path) -> "AcceptanceHead":
        """Read one that was saved.

        Raises:
            PacelineError: there is none, or the file is something else.
        """
        try:
            weights = load(path.read_bytes())
            blocks = max(int(name.split(".")[1]) for name in weights)
            head = AcceptanceHead(weights[f"model.{blocks}.weight"].shape[1], blocks)
            head.load_state_dict(weights)
        except (OSError, SafetensorError, ValueError, IndexError, KeyError, RuntimeError) as error:
            raise PacelineError(
                f"{path} holds no acceptance head: give a file that train_head's head saved."
            ) from error
        return head.eval()


@torch.no_grad()
def collect(
    target: LM, draft: Layered, prompts: Sequence[Sequence[int]], tokens: int, choice: Choice, mix: float, seed: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """What the head learns from: hidden states of guesses, and the chance a_i of each.

    Raises:
        PacelineError: another vocabulary, or no prompt.
    """
    compatible(target, draft, "draft")
    if not prompts:
        raise PacelineError("The acceptance head learns from prompts: give at least one.")
    hidden, chances = [], []
    for index, prompt in enumerate(prompts):
        draws = torch.Generator().manual_seed(derive(seed, "labels", index))
        made = generate(target, prompt, Stepwise(choice), tokens, seed=derive(seed, "text", index)).all()
        x, begins = torch.tensor([*prompt, *made]), len(prompt)
        p, q = (choice.probabilities(lm(x[None, :-1], None)[0][0, begins - 1 :]) for lm in (target, draft))
        y = torch.multinomial(q, 1, generator=draws)
        chance = (p.gather(1, y) / q.gather(1, y)).clamp_max(1).squeeze(1)
        kept = torch.rand(len(y), generator=draws) >= mix
        z = torch.where(kept, y.squeeze(1), x[begins:])
        states, _ = read_layers(draft, torch.cat((x[:begins], z))[None], None)
        hidden.append(draft.final(states)[0, begins:][kept].float())
        chances.append(chance[kept].float())
    return torch.cat(hidden), torch.cat(chances)


def acceptance_loss(logits: Float[Tensor, "n 2"], chances: Float[Tensor, " n"], weight: float) -> Float[Tensor, ""]:
    """The loss above."""
    log_p = logits.log_softmax(-1)
    refused, accepted = weight * (1 - chances), chances
    return -(refused * log_p[:, 0] + accepted * log_p[:, 1]).sum() / (refused + accepted).sum()


def train_head(
    target: LM, draft: Layered, prompts: Sequence[Sequence[int]], *, tokens: int = 128, temperature: float = 1.0,
    blocks: int = 3, weight: float = 6.0, mix: float = 0.15, epochs: int = 3, batch: int = 256, lr: float = 1e-3,
    seed: int = 0,
) -> AcceptanceHead:  # fmt: skip
    """A head for this pair of models, by AdamW with a cosine; numbers as the authors', but for the steps' size.

    Args:
        target: the model that verifies.
        draft: the model that guesses, whose layers can be run apart (`lm/layers.py`).
        prompts: token numbers of each.
        tokens: of each continuation.
        temperature: of the choice that will be decoded with.
        blocks: residual blocks of the head.
        weight: w.
        mix: share of places that keep the target's token.
        epochs: passes over all guesses.
        batch: guesses of a step.
        lr: peak learning rate, after 3 % of the steps.
        seed: of every chance.
    """
    x, chances = collect(target, draft, prompts, tokens, Choice(temperature), mix, seed)
    head = AcceptanceHead(x.shape[1], blocks, seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.0)
    draws, steps = torch.Generator().manual_seed(derive(seed, "order")), epochs * math.ceil(len(x) / batch)
    for step in range(steps):
        if step % math.ceil(len(x) / batch) == 0:
            rows = iter(torch.randperm(len(x), generator=draws).split(batch))
        chosen = next(rows)
        rise = min(1.0, (step + 1) / max(1.0, 0.03 * steps))
        optimizer.param_groups[0]["lr"] = lr * rise * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        loss = acceptance_loss(head(x[chosen]), chances[chosen], weight)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return head.eval()
