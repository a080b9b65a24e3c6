"""`paceline infill`: what a model trained with `--objective ul2` puts between two texts."""

import json
from pathlib import Path

import torch
from rich.console import Console

from paceline.core.errors import PacelineError
from paceline.lm.checkpoint import load_model
from paceline.lm.denoising import infill, objective_of
from paceline.lm.layers import layered
from paceline.objectives.ul2 import UL2


def run(model: str, left: str, right: str, tokens: int, mode: str) -> None:
    """Print the whole text, the gap filled.

    Raises:
        PacelineError: the model was not trained to fill gaps, or there is no text beside the gap.
    """
    folder = Path(model)
    decoder, _ = load_model(folder)
    try:
        named = json.loads((folder / "training.json").read_text(encoding="utf-8")).get("objective")
    except (OSError, ValueError, AttributeError):
        named = None
    objective = objective_of(named) if isinstance(named, str) else None
    if not isinstance(objective, UL2):
        raise PacelineError(f"{model} was not trained to fill gaps: train one with --objective ul2.")
    if mode not in ("R", "X"):
        raise PacelineError(f"There is no mode {mode!r} that fills gaps: R fills short ones, X long ones.")
    with torch.no_grad():
        made = infill(layered(decoder.eval()), objective, list(left.encode()), list(right.encode()), tokens, mode)
    console = Console(highlight=False)
    console.print(f"{left}{bytes(made).decode(errors='replace')}{right}", markup=False, soft_wrap=True)
