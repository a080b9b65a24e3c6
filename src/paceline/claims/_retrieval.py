"""Long texts with facts hidden in them, and questions about the facts, in the tokens of a pretrained model.

    haystack   lines of Python's documentation or of its standard library, `length` tokens in all
    passkey    "The pass key is 71432. Remember it. 71432 is the pass key."         asked: the five digits
    needle     "The best thing to do in Lisbon is to fly a kite on the beach."      asked: what to do
    multi_key  "The magic number of amber is 20773.", four words with numbers       asked: that of one word

A seed hides all of them at random depths of one text, and asks for all, or for the number of one word and the pass key
(even seeds) or the needle (odd seeds); the length goes round by seed. The text's own continuation is kept to be
predicted.
"""

import platform
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from paceline.claims._pretrained import TINY, load
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.data._corpus import default_documents
from paceline.data._untrained import Untrained
from paceline.lm.huggingface.llama import Llama
from paceline.lm.open import Bytes, Opened, open_lm

WORDS = ("amber", "cedar", "copper", "falcon", "harbor", "lantern", "marble", "meadow", "pepper", "violet")
CITIES = ("Lisbon", "Denver", "Oslo", "Kyoto", "Cairo", "Dublin", "Lima", "Prague")
DEEDS = (
    "eat a sandwich in the old market", "listen to jazz by the river", "ride a red bicycle along the canal",
    "fly a kite on the beach", "drink mint tea on a quiet roof", "watch the boats from the stone bridge",
    "visit the museum of clocks", "feed the ducks in the park at noon",
)  # fmt: skip
KEYS = 4
"""Words with numbers in a haystack."""
ALL = KEYS + 2
"""Facts in a haystack."""
EDGE = 16
"""Tokens at either end of a haystack without a fact."""


@dataclass(frozen=True)
class Question:
    """What is asked, in tokens."""

    kind: str
    ids: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Item:
    """A haystack with its questions."""

    context: list[int]
    questions: list[Question]
    text: list[int]
    """How the haystack goes on."""


class Haystacks(Untrained):
    """Questions about facts that are hidden in long texts.

    Args:
        model: whose tokens; see `lm.pretrained`, or `TINY`.
        lengths: tokens of a context, facts included, one after the other by seed.
        asked: how many questions a seed asks, 1 (the seed's own kind in turns), 2, or 6, which are all.
        text: tokens of the continuation that are predicted, too.

    Raises:
        PacelineError: `asked` is none of them, or there is no length.
    """

    name = "recall"
    title = "Facts hidden in long text"
    metric = "bits per answer token"
    better = "lower"
    floor = None
    ceiling = None
    vocab_size = 0

    def __init__(self, model: str, lengths: Sequence[int], asked: int = 2, text: int = 0) -> None:
        if asked not in (1, 2, ALL) or not lengths or text < 0:
            raise PacelineError(f"Haystacks ask 1, 2 or {ALL} questions about texts of some length, not {asked}.")
        self.model, self.lengths, self.items, self.text = model, tuple(lengths), asked, text
        self.length = max(lengths)

    def drawn(self, seed: int, opened: Opened) -> Item:
        """The haystack of a seed.

        Raises:
            PacelineError: the text is too short for it.
        """
        draw = random.Random(derive(seed, "haystack"))
        words = draw.sample(WORDS, KEYS)
        numbers, key = [_number(draw) for _ in words], _number(draw)
        city, deed = draw.choice(CITIES), draw.choice(DEEDS)
        facts = [
            f"The pass key is {key}. Remember it. {key} is the pass key.",
            f"The best thing to do in {city} is to {deed}.",
            *(f"The magic number of {word} is {number}." for word, number in zip(words, numbers, strict=True)),
        ]
        told = [
            ("passkey", "What is the pass key? The pass key is ", key),
            ("needle", f"What is the best thing to do in {city}? The best thing to do in {city} is to", f" {deed}."),
            *(
                ("multi_key", f"What is the magic number of {word}? The magic number of {word} is ", number)
                for word, number in zip(words, numbers, strict=True)
            ),
        ]
        encode = opened.words.encode
        questions = [Question(kind, encode(f"\n\n{ask}"), encode(answer)) for kind, ask, answer in told]
        length = self.lengths[seed % len(self.lengths)]
        hidden = [encode(f"\n\n{fact}\n\n") for fact in draw.sample(facts, len(facts))]
        bare = length - sum(map(len, hidden))
        context = self._read(bare + self.text, draw, opened)
        context, text = context[:bare], context[bare:]
        for place, fact in zip(sorted(draw.sample(range(EDGE, bare - EDGE), len(hidden)))[::-1], hidden, strict=True):
            context[place:place] = fact
        if self.items == ALL:
            return Item(context, questions, text)
        if self.items == 1:
            return Item(context, [questions[seed % 3]], text)
        return Item(context, [questions[seed % 2], questions[2]], text)

    def _read(self, tokens: int, draw: random.Random, opened: Opened) -> list[int]:
        """So many tokens of prose or code, from the beginning of a line."""
        source = _source(draw.choice(("pydoc:", "stdlib:")))
        span = 12 * tokens
        start = source.find(b"\n", draw.randrange(max(1, len(source) - span))) + 1
        ids = opened.words.encode(source[start : start + span].decode(errors="ignore"))
        if len(ids) < tokens:
            raise PacelineError(
                f"There are no {tokens:,} tokens of {self.model} in {span:,} bytes: take shorter texts."
            )
        return ids[:tokens]

    def describe(self) -> str:
        """See `Task.describe`."""
        lengths = ", ".join(f"{length:,}" for length in self.lengths)
        asked = KEYS if self.items == ALL else f"one of {KEYS}"
        return (
            f"Answer {self.items} of a pass key, a needle and {asked} numbers, hidden in {lengths} tokens of "
            f"{self.model} by seed, from the texts of Python {platform.python_version()}; then {self.text} more tokens."
        )


def open_tiny_or(model: str) -> Opened:
    """The model in its lean form, ready to be put under a policy."""
    return Opened(TINY, Llama(load(TINY)), Bytes()) if model == TINY else open_lm(model)


def _number(draw: random.Random) -> str:
    return "".join(draw.choice("0123456789") for _ in range(5))


@cache
def _source(prefix: str) -> bytes:
    return b"\n".join(document.content for document in default_documents() if document.name.startswith(prefix))
