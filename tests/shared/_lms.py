"""Models of every kind that decoding must work with, made on the spot."""

from _foreign import FOREIGN, foreign
from _tiny import model

from paceline.core.state import LM
from paceline.lm.layers import layered

LEAN = {"lean llama": "llama", "lean qwen3": "qwen3"}
LAYERED = {"layered hybrid": "hybrid"}
LMS = ["attention", "ema", "hybrid", "layered hybrid", "lean llama", "gpt2", "mamba"]


def lean(kind: str) -> LM:
    """A Llama-like model of transformers under Paceline's own forward pass, in float64."""
    from paceline.lm.huggingface.llama import Llama

    return Llama(foreign(kind).model)


def decoding_lm(name: str) -> LM:
    """In float64, so that ties and rounding decide nothing."""
    if name in LAYERED:
        return layered(decoding_lm(LAYERED[name]))
    if name in LEAN:
        return lean(LEAN[name])
    return foreign(name) if name in FOREIGN else model(name).double()
