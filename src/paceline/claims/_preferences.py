"""Preferences between texts that a line of code tells, and what learns from them."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.seeds import derive
from paceline.core.state import State
from paceline.data.text import Text
from paceline.decode._guided import Guide
from paceline.decode._reward import text_reward
from paceline.lm.decoder import Decoder

PROMPT, TOP = 16, 10
"""Bytes of a prompt; next bytes that are scored by the reward of a whole text."""
HEAD = 255
"""The byte whose logit is the reward of a whole text: UTF-8 has no use for it."""


def short_lines(ids: Int[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Minus the bytes of the longest line."""
    here = longest = torch.zeros(len(ids))
    for byte in ids.T:
        here = torch.where(byte == ord("\n"), 0.0, here + 1)
        longest = torch.maximum(longest, here)
    return -longest


def vowels(ids: Int[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """How many there are."""
    return torch.isin(ids, torch.tensor(list(b"aeiouAEIOU"))).sum(1).float()


REWARDS: dict[str, Callable[[Tensor], Tensor]] = {"short_lines": short_lines, "vowels": vowels}


class Rewarded(Text):
    """Texts that continue a corpus's, by how much they have of what is preferred.

    Args:
        folder: as in `Text`.
        reward: one of `REWARDS`.
        pairs: of texts, to learn preferences from.
        steps: of that training.
        made: bytes of a text.
        items: prompts that a seed draws.
    """

    metric = "standard deviations"
    better = "higher"  # type: ignore[assignment]
    floor = None  # type: ignore[assignment]

    def __init__(self, folder: str | Path, reward: str, pairs: int, steps: int, made: int, items: int) -> None:
        super().__init__(folder, 128)
        self.reward, self.pairs, self.steps, self.made, self.items = reward, pairs, steps, made, items
        self.name, self.title = reward, reward.replace("_", " ").capitalize()  # type: ignore[misc]

    def describe(self) -> str:
        """See `Task.describe`."""
        learnt = f"{self.pairs} pairs in {self.steps} steps"
        digest = self.corpus.digest[:8]
        return f"Continue {self.items} prompts by {self.made} bytes for {self.reward}, from {learnt} (digest {digest})."

    def prompts(self, seed: int, use: str, count: int) -> Int[Tensor, "b t"]:
        """Of the training text, as the base model's own is all that counts."""
        draws = torch.Generator().manual_seed(derive(seed, "prompts", use))
        return self.sample(count, draws).ids[:, :PROMPT]


class WholeTexts(Guide):
    """Next bytes by the reward of the text up to them.

    Args:
        lm: the reward model.
        strength: of its scores.
    """

    def __init__(self, lm: Decoder, strength: float) -> None:
        self.lm, self.strength = lm, strength
        self.helper_calls = TOP

    def initial_state(self, batch: int) -> State:
        """See `Guide.initial_state`."""
        return self.lm.initial_state(batch)

    def __call__(self, logits: Tensor, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Guide.__call__`; the logits of the last token only, which is what is drawn from."""
        _, state = self.lm(ids, state)
        likeliest = logits[:, -1].topk(TOP).indices
        rows = torch.arange(len(ids)).repeat_interleave(TOP)
        said, _ = self.lm(likeliest.view(-1, 1), state.select(rows))
        scores = said[:, -1, HEAD].view(-1, TOP)
        logits = logits.clone()
        logits[:, -1] = logits[:, -1].scatter_add(1, likeliest, self.strength * (scores - scores.mean(1, keepdim=True)))
        return logits, state


def whole_reward(model: Decoder, ids: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """Of prompts and texts, by a model whose head it is."""
    return model.logits(ids)[:, -1, HEAD]


def token_reward(model: Decoder, ids: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """Of texts, by an autoregressive reward model; their prompts do not count."""
    text = (torch.arange(1, ids.shape[1]) >= PROMPT).expand(len(ids), -1)
    return text_reward(model.logits(ids)[:, :-1], ids[:, 1:], text)


def spread(rewards: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Their standard deviation; where they are all alike next to nothing, and not zero."""
    return rewards.std().clamp_min(1e-6)
