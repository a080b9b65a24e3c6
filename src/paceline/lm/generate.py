"""Sampling from a causal language model, one token at a time through its state."""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.state import LM

PIECE = 1024
"""Tokens of the prompt that are read at a time: the logits of all of them are made, and only the last are used."""


@torch.no_grad()
def generate(
    lm: LM, prompt: Int[Tensor, " t"], tokens: int, *, temperature: float = 1.0, seed: int = 0
) -> Iterator[int]:
    """Yield `tokens` tokens after the prompt. The prompt is read once, in pieces; every later step reads one token.

    A model that looks ahead in prompts (`Mixer.looks_ahead`) reads it as a whole.

    Args:
        lm: any model of the protocol.
        prompt: at least one token.
        tokens: how many to generate.
        temperature: divides the logits; 0 takes the likeliest token.
        seed: of the draws.

    Raises:
        PacelineError: a prompt that is empty or outside the vocabulary, a negative temperature, logits that are not
            numbers, or a state or prompt beyond this machine's memory.
    """
    if prompt.numel() == 0:
        raise PacelineError("The prompt is empty: give at least one character to continue from.")
    if not 0 <= int(prompt.min()) <= int(prompt.max()) < lm.vocab_size:
        raise PacelineError(f"The prompt has tokens outside the model's vocabulary of {lm.vocab_size}.")
    if not temperature >= 0:
        raise PacelineError(f"The temperature must be 0 or above, not {temperature}.")
    draws = torch.Generator().manual_seed(seed)
    state = None
    try:
        if getattr(lm, "looks_ahead", False):
            logits, state = lm.read_prompt(prompt.unsqueeze(0))  # type: ignore[attr-defined]
        else:
            for piece in prompt.split(PIECE):
                logits, state = lm(piece.unsqueeze(0), state)
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise PacelineError(
            "The model and this prompt need more memory than there is: give less, or a smaller model."
        ) from error
    for left in range(tokens - 1, -1, -1):
        last = logits[0, -1].double()
        if not torch.isfinite(last).all():
            raise PacelineError(
                "The model returned logits that are not finite: its weights are damaged or it diverged."
            )
        if temperature == 0:
            token = int(last.argmax())
        else:
            token = int(torch.multinomial(((last - last.max()) / temperature).softmax(-1), 1, generator=draws))
        yield token
        if left:
            logits, state = lm(torch.tensor([[token]]), state)
