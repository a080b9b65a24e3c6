"""Texts that a model writes, and what it and others say of them."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.state import LM
from paceline.lm.adapted import Foreign
from paceline.lm.decoder import Decoder

Tokens = Sequence[int]
Reward = Callable[[list[list[int]], list[list[int]]], Sequence[float]]
"""(prompts, texts) -> a number for each text, more is better."""


def writer(model: Decoder) -> LM:
    """The model under the protocol of decoding, its weights shared."""
    if isinstance(model, Foreign):
        from paceline.lm.huggingface.foreign import HuggingFaceLM

        return HuggingFaceLM(model.model)
    return model


@torch.no_grad()
def write(
    lm: LM, prompts: Sequence[Tokens], tokens: int, seed: int, ends: Sequence[int] = (), temperature: float = 1.0
) -> list[list[int]]:
    """Texts drawn side by side, those of prompts of one length at a time, each up to an end, which it includes.

    Raises:
        PacelineError: a prompt has no tokens.
    """
    if not all(prompts):
        raise PacelineError("A prompt is empty: give each at least one token.")
    texts: list[list[int]] = [[] for _ in prompts]
    draws = torch.Generator().manual_seed(seed)
    last = torch.tensor(list(ends))
    for length in sorted({len(prompt) for prompt in prompts}):
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
        ids, state, done = torch.tensor([list(prompts[row]) for row in rows]), None, torch.zeros(len(rows)).bool()
        made, ended = [], []
        for _ in range(tokens):
            logits, state = lm(ids, state)
            ids = torch.multinomial((logits[:, -1].float() / temperature).softmax(-1), 1, generator=draws)
            made.append(ids)
            ended.append(done)
            done = done | torch.isin(ids[:, 0], last)
            if done.all():
                break
        drawn, over = torch.cat(made, 1), torch.stack(ended, 1)
        for row, text, behind in zip(rows, drawn, over, strict=True):
            texts[row] = text[~behind].tolist()
    return texts


def batch(prompts: Sequence[Tokens], texts: Sequence[Tokens]) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b m"]]:
    """Prompts with their texts, padded behind them, and which of the tokens after the first were written, m = n - 1."""
    whole = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]
    longest = max(map(len, whole))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in whole])
    place = torch.arange(1, longest)
    begin = torch.tensor([[len(prompt)] for prompt in prompts])
    return ids, (place >= begin) & (place < torch.tensor([[len(row)] for row in whole]))


def log_probabilities(model: Decoder, ids: Int[Tensor, "b n"]) -> tuple[Float[Tensor, "b m"], Float[Tensor, "b m"]]:
    """Of each token after the first, and the entropy of what it was drawn from, in nats."""
    said = model.logits(ids)[:, :-1].float().log_softmax(-1)
    return said.gather(2, ids[:, 1:, None]).squeeze(2), -(said.exp() * said).sum(-1)


def rewards_of(reward: Reward, prompts: list[list[int]], texts: list[list[int]]) -> Float[Tensor, " b"]:
    """The reward's numbers.

    Raises:
        PacelineError: it fails, gives another number of numbers, or one that is none.
    """
    try:
        given = [float(number) for number in reward(prompts, texts)]
    except PacelineError:
        raise
    except Exception as error:  # it is the user's own code
        raise PacelineError(f"The reward failed ({type(error).__name__}: {error}): mend it.") from error
    if len(given) != len(texts):
        raise PacelineError(f"The reward gave {len(given)} numbers for {len(texts)} texts: it must give one for each.")
    odd = next((index for index, number in enumerate(given) if not math.isfinite(number)), None)
    if odd is not None:
        raise PacelineError(f"The reward of text {odd} is {given[odd]}: it must be a finite number.")
    return torch.tensor(given)
