"""`paceline generate`: continue a text with a saved byte model."""

import codecs
import sys
from pathlib import Path

import torch

from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.lm.checkpoint import load_model
from paceline.lm.generate import generate

LONGEST_PROMPT = 2**20


def run(folder: Path, prompt: str, tokens: int, temperature: float, seed: int) -> None:
    """Print the prompt and its continuation as it comes. Bytes that are not UTF-8 show as replacement characters."""
    if tokens < 1:
        raise PacelineError(f"--tokens must be at least 1, not {tokens}.")
    text = prompt.encode("utf-8", errors="surrogateescape")
    if len(text) > LONGEST_PROMPT:
        raise PacelineError(f"The prompt has {len(text):,} bytes: give its last {LONGEST_PROMPT:,} at most.")
    model, config = load_model(folder)
    if config.task != "text":
        raise PacelineError(f"{folder} was trained on {config.task}, not on text: it does not read prompts.")
    ids = torch.tensor(list(text), dtype=torch.long)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    sys.stdout.write(prompt)
    for token in generate(model, ids, tokens, temperature=temperature, seed=derive(seed, "generate")):
        sys.stdout.write(decoder.decode(bytes([token])))
        sys.stdout.flush()
    sys.stdout.write(decoder.decode(b"", final=True) + "\n")
