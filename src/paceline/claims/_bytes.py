"""Texts that are cut in the middle of a token, and how well a model of bytes goes on."""

import math
import platform
import random
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from paceline.claims._pretrained import TINY, load
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.core.state import State
from paceline.data._corpus import default_documents
from paceline.data._untrained import Untrained
from paceline.lm.huggingface.llama import Llama
from paceline.lm.open import open_lm
from paceline.tokens._contract import ByteView
from paceline.tokens._vocabulary import Vocabulary

KINDS = ("pydoc:", "stdlib:")
"""Prose and code, in turns."""
MERGES = ((b"t", b"h"), (b"th", b"e"), (b"i", b"n"), (b"in", b"g"), (b"e", b"r"))
"""Of the tokenizer that the tiny model is given in place of its last bytes."""


@dataclass(frozen=True)
class Tokens:
    """A model of tokens, with what a view of it needs."""

    lm: Llama
    vocabulary: Vocabulary
    start: int
    ends: tuple[int, ...]


def tokens(model: str) -> Tokens:
    """SmolLM2 between its ends of documents, or the tiny model with a few merges."""
    if model != TINY:
        lm = open_lm(model).lm
        assert isinstance(lm, Llama)
        return Tokens(lm, Vocabulary.of(lm.tokenizer), 0, (0, 2))
    pieces: list[bytes | None] = [bytes([byte]) for byte in range(250)]
    merges = []
    for left, right in MERGES:
        pieces.append(left + right)
        merges.append((pieces.index(left), pieces.index(right), len(pieces) - 1))
    return Tokens(Llama(load(TINY)), Vocabulary([*pieces, None], merges), 255, (255,))


@dataclass(frozen=True)
class Cut:
    """A text in two, cut within a token."""

    prompt: bytes
    after: bytes


class MidToken(Untrained):
    """Go on with texts that are cut in the middle of a token.

    Args:
        model: whose tokens; see `lm.pretrained`, or `TINY`.
        prompt: bytes of a prompt, about.
        after: bytes that are predicted.
        items: texts of a seed, prose and code in turns.

    Raises:
        PacelineError: nothing is asked.
    """

    name = "mid_token"
    title = "Going on in the middle of a token"
    metric = "bits per byte"
    better = "lower"
    floor = None
    ceiling = None
    vocab_size = 0

    def __init__(self, model: str, prompt: int, after: int, items: int) -> None:
        if min(prompt, after, items) < 1:
            raise PacelineError(f"Nothing to go on with: {items} prompts of {prompt} bytes, {after} to be predicted.")
        self.model, self.prompted, self.length, self.items = model, prompt, after, items

    def drawn(self, seed: int, vocabulary: Vocabulary) -> list[Cut]:
        """The texts of a seed."""
        draw = random.Random(derive(seed, "cuts"))
        return [self._cut(_source(KINDS[item % 2]), draw, vocabulary) for item in range(self.items)]

    def _cut(self, source: bytes, draw: random.Random, vocabulary: Vocabulary) -> Cut:
        while True:
            begin = source.find(b"\n", draw.randrange(len(source) - 4 * self.prompted - 4_000)) + 1
            text = source[begin : begin + self.prompted + 64 + self.length]
            if not text.isascii():
                continue
            at, inside = 0, list[int]()
            for token in vocabulary.encode(text):
                size = len(vocabulary.pieces[token] or b"")
                letters = (vocabulary.pieces[token] or b"").strip().isalpha()
                inside += range(at + 1, at + size) if letters and size > 1 else []
                at += size
            inside = [place for place in inside if self.prompted <= place < self.prompted + 64 and text[place] > 32]
            inside = [place for place in inside if text[place - 1] > 32]
            if inside:
                place = draw.choice(inside)
                return Cut(text[:place], text[place : place + self.length])

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Predict {self.length} bytes after {self.items} prompts of about {self.prompted} that end within a word's "
            f"token of {self.model}, prose and code of Python {platform.python_version()} in turns."
        )


@torch.no_grad()
def follow(view: ByteView, logits: Tensor, state: State, after: bytes) -> tuple[float, float, State]:
    """Bits per byte of what follows, the share of its bytes that were the likeliest, and the state before the last."""
    bits, right = 0.0, 0
    for number, byte in enumerate(after):
        bits -= float(logits.log_softmax(-1)[byte]) / math.log(2)
        right += int(logits.argmax()) == byte
        if number + 1 < len(after):
            said, state = view(torch.tensor([[byte]]), state)
            logits = said[0, 0]
    return bits / len(after), right / len(after), state


@cache
def _source(prefix: str) -> bytes:
    return b"\n".join(document.content for document in default_documents() if document.name.startswith(prefix))
