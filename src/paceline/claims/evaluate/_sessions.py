"""Sessions of Python in the words of a pretrained model: Latent List, a single needle, and a question about another."""

import random
from dataclasses import replace

from paceline.claims._pretrained import TINY
from paceline.core.seeds import derive
from paceline.data._untrained import Untrained
from paceline.evaluate._contract import Item, Words, fill
from paceline.evaluate.latent_list import LatentList, _idle

VIEWS = ("a[:2]", "a[0]")


class Sessions(Untrained):
    """Questions about sessions, `items` a seed.

    Args:
        model: whose words; see `lm.open`, or `TINY`.
        items: questions of a seed.
        short: tokens of a short session.
        long: tokens of a long one.
        many: operations of a complex list.
    """

    name = "sessions"
    title = "Sessions of Python"
    metric = "accuracy"
    better = "higher"
    floor = LatentList.floor
    ceiling = 1.0
    vocab_size = 0

    def __init__(self, model: str, items: int, short: int, long: int, many: int) -> None:
        self.model, self.items, self.short = model, items, short
        self.long, self.length, self.many = long, long, many

    def question(self, words: Words, number: int, operations: int, length: int) -> Item:
        """A list's; views take turns."""
        return LatentList(operations, VIEWS[number % len(VIEWS)]).item(words, length, derive(number, "session"))

    def bare(self, words: Words, number: int, operations: int) -> Item:
        """A list's, without any irrelevant line."""
        item = self.question(words, number, operations, self.long)
        head, tail = item.prompt.partition(">>> ")[0], f">>> print({item.facts['view']})\n"
        return replace(item, prompt=head + "".join(item.told) + tail)

    def elsewhere(self, words: Words, number: int, operations: int, length: int) -> Item:
        """The sham: the session of another list, with this one's question, options and answer."""
        item = self.question(words, number, operations, length)
        other = self.question(words, number + 1_000_000 * len(VIEWS), operations, length)
        return replace(item, prompt=other.prompt)

    def needle(self, words: Words, number: int, length: int) -> Item:
        """One assignment among the same irrelevant lines, whose value is asked."""
        draw = random.Random(derive(number, "needle"))
        name = draw.choice(("key", "code", "token", "secret"))
        options = [str(draw.randrange(10_000, 100_000)) for _ in range(4)]
        told = [f">>> {name} = {options[0]}\n"]
        answer = f"{options[0]}\n"
        draw.shuffle(options)
        tail, head = f">>> print({name})\n", "This is a session of Python.\n\n>>> a = [5, 2, 8, 2]\n"
        prompt = fill(words, length, head, told, tail, lambda: _idle(draw), draw)
        return Item(prompt, answer, tuple(f"{option}\n" for option in options), tuple(told))

    def describe(self) -> str:
        """See `Task.describe`."""
        bytes_only = " (bytes)" if self.model == TINY else ""
        return (
            f"Say what a Python list or a name holds after sessions of up to {self.long} tokens of "
            f"{self.model}{bytes_only}, choosing among four answers."
        )
