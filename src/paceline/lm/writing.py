"""A language model as a writer: text in, several texts out, drawn side by side."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from paceline.core.seeds import derive
from paceline.decode._choice import Choice
from paceline.decode._generate import check_prompt
from paceline.lm.open import Opened
from paceline.lm.quick import quicken

Writer = Callable[[str, int, int], list[str]]
"""(prompt, n, seed) -> n texts."""


def writer(opened: Opened, tokens: int = 96, temperature: float = 0.7) -> Writer:
    """A language model as a writer of texts: what it answers to a prompt, drawn side by side.

    Args:
        opened: the model; one made for chats is asked in its own form.
        tokens: of a text, at most.
        temperature: of the draws; the authors' is 0.7.
    """
    quick = replace(opened, lm=quicken(opened.lm))

    def write(prompt: str, n: int, seed: int) -> list[str]:
        return drawn(quick, [prompt], n, tokens, temperature, seed)[0]

    return write


@torch.no_grad()
def drawn(
    opened: Opened, prompts: Sequence[str], n: int, tokens: int, temperature: float, seed: int
) -> list[list[str]]:
    """Several answers to each of several prompts, all drawn side by side; a prompt is read once for all its answers."""
    lm: Any = opened.lm
    ids = [check_prompt(lm, opened.words.encode(_asked(opened, prompt))) for prompt in prompts]
    if callable(getattr(lm, "read_padded", None)) and getattr(lm, "pads", False):
        logits, state = lm.read_padded(ids)
    elif len(ids) > 1:
        lots = [drawn(opened, [p], n, tokens, temperature, derive(seed, i)) for i, p in enumerate(prompts)]
        return [texts for lot in lots for texts in lot]
    else:
        logits, state = lm(torch.tensor(ids), lm.initial_state(1))
    rows = torch.arange(len(ids)).repeat_interleave(n)
    logits, state = logits[rows, -1], state.select(rows)
    made: list[list[int]] = [[] for _ in rows]
    alive, ends, choice = list(range(len(rows))), set(opened.ends), Choice(temperature)
    draws = torch.Generator().manual_seed(seed)
    for _ in range(tokens):
        chosen = choice.draw(logits, draws).tolist()
        goes_on = [i for i, token in enumerate(chosen) if token not in ends]
        if not goes_on:
            break
        if len(goes_on) < len(alive):
            alive, state = [alive[i] for i in goes_on], state.select(torch.tensor(goes_on))
            chosen = [chosen[i] for i in goes_on]
        for row, token in zip(alive, chosen, strict=True):
            made[row].append(token)
        logits, state = lm(torch.tensor([[token] for token in chosen]), state)
        logits = logits[:, -1]
    texts = [opened.words.decode(text) for text in made]
    return [texts[i : i + n] for i in range(0, len(texts), n)]


def _asked(opened: Opened, prompt: str) -> str:
    """The prompt in the form of a model made for chats, as it is for another."""
    tokenizer: Any = getattr(opened.lm, "tokenizer", None)
    if not getattr(tokenizer, "chat_template", None):
        return prompt
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
