"""Models and tasks of a few hundred numbers, shared by the tests of this folder."""

import torch

from paceline.data.recall import Recall
from paceline.lm.config import Config, build
from paceline.lm.decoder import Decoder
from paceline.mixers.seqboat import SeqBoat

torch.set_num_threads(1)  # nothing here is large enough to share

SEQBOAT = "seqboat(memory=4, key_width=8, dims=4)"
PLANS: dict[str, tuple[str, ...]] = {
    "attention": ("attention(heads=2)",) * 2,
    "ema": ("ema(dims=4)",) * 2,
    "lightning": ("lightning(heads=2)",) * 2,
    "seqboat": (SEQBOAT,) * 2,
    "hybrid": ("ema(dims=4)", "attention(heads=2, window=5)", SEQBOAT),
}
VOCABULARY = 11


def config(plan: str, vocabulary: int = VOCABULARY, hidden: int = 24) -> Config:
    return Config(vocabulary, 16, hidden, PLANS[plan], "recall")


def model(plan: str, vocabulary: int = VOCABULARY, seed: int = 0) -> Decoder:
    """Where a layer chooses tokens, without its head start, so that some tokens go each way."""
    torch.manual_seed(seed)
    built = build(config(plan, vocabulary))
    for mixer in built.mixers:
        if isinstance(mixer, SeqBoat):
            torch.nn.init.zeros_(mixer.configurator.logits.bias)
    return built


def recall() -> Recall:
    """12 tokens a sequence over a vocabulary of 7; 4 answers asked."""
    task = Recall(pairs=2, keys=3, values=3, stretch=4, queries=4)
    task.items = 20
    return task


def same(one: Decoder, other: Decoder) -> bool:
    """Every tensor equal, bit for bit."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
