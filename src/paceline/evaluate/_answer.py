"""What a language model answers: by the likelihood of each option, or in its own words."""

from collections.abc import Sequence

import torch
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.state import LM, State
from paceline.evaluate._contract import Evaluation, Item, Words

PIECE = 256
"""Tokens of a prompt that are read at a time."""


@torch.no_grad()
def read(lm: LM, ids: Sequence[int]) -> tuple[Tensor, State]:
    """Logits (1, v) after the last token, and the state, read in pieces.

    Raises:
        PacelineError: there is no token.
    """
    if not ids:
        raise PacelineError("There is nothing to read: give a prompt of at least one token.")
    state: State | None = None
    for start in range(0, len(ids), PIECE):
        logits, state = lm(torch.tensor([list(ids[start : start + PIECE])]), state)
    assert state is not None
    return logits[:, -1].float(), state


@torch.no_grad()
def log_likelihoods(lm: LM, words: Words, item: Item) -> list[float]:
    """Mean log probability (nats) of the tokens of each option after the prompt.

    The tokens are those of prompt and option written as one text, as far as the prompt's own are kept: where a
    tokenizer would join the last letters of the prompt with the option, its bare tokens follow instead.
    """
    prompt = words.encode(item.prompt)
    last, state = read(lm, prompt)
    found = []
    for option in item.options:
        whole = words.encode(item.prompt + option)
        ids = whole[len(prompt) :] if whole[: len(prompt)] == prompt else words.encode(option)
        logits = last
        if len(ids) > 1:
            more, _ = lm(torch.tensor([ids[:-1]]), state.fork())
            logits = torch.cat((last, more[0].float()))
        found.append(float(logits.log_softmax(-1)[range(len(ids)), ids].mean()))
    return found


def chosen(lm: LM, words: Words, evaluation: Evaluation, item: Item) -> float:
    """What the likeliest option is worth."""
    ranks = log_likelihoods(lm, words, item)
    return evaluation.choice(ranks.index(max(ranks)), item)


@torch.no_grad()
def written(lm: LM, words: Words, item: Item, tokens: int = 48, ends: Sequence[int] = ()) -> str:
    """The model's own answer, greedy: `tokens` at most, or up to an end, or a line's end after something was said."""
    logits, state = read(lm, words.encode(item.prompt))
    ids: list[int] = []
    while len(ids) < tokens:
        token = int(logits.argmax())
        if token in ends:
            break
        ids.append(token)
        if "\n" in words.decode(ids).lstrip():
            break
        more, state = lm(torch.tensor([[token]]), state)
        logits = more[:, -1]
    return words.decode(ids)
