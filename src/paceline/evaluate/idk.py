"""IDK: a question about a long text, of which the text tells the answer, or does not.

    ... The magic colour of the heron is blue. ...
    What is the magic colour of the otter?  (A) blue  (B) green  (C) red  (D) I don't know

Half of the questions are answered by the text, in which other animals have colours too; for the rest "I don't know"
is right. Scored by the letter that is written first, or by the likeliest of the four. Telling when not to answer is the
paper's point: a model that always finds something scores a half at best.

Departures: the paper's texts are rambling stories of a large model; here sentences of a small grammar fill the length.
"""

import random
import re

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.evaluate._contract import Evaluation, Item, Words, fill

PAPERS = (
    Paper(
        title="Michelangelo: Long Context Evaluations Beyond Haystacks via Latent Structure Queries",
        arxiv="2409.12640",
        year=2024,
        says="models do not know what a long text leaves untold",
    ),
)
ANIMALS = ("heron", "otter", "badger", "falcon", "beaver", "lynx", "marten", "raven", "salmon", "weasel")
COLOURS = ("blue", "green", "red", "yellow", "white", "black", "purple", "orange")
PLACES = ("the mill", "the harbour", "the school", "a long road", "the market", "the tower", "a narrow bridge")
DEEDS = ("is closed on Mondays", "was painted long ago", "stands near the river", "has a new roof", "is quiet tonight")
LETTERS = "ABCD"
UNKNOWN = "I don't know"


class IDK(Evaluation):
    """Answer, or say that the text does not tell.

    Args:
        others: animals whose colours the text tells besides, 1 to 8.
        known: share of questions that the text answers, 0 to 1.

    Raises:
        PacelineError: a number out of its range.
    """

    title = "I don't know"
    floor = 1 / len(LETTERS)

    def __init__(self, others: int = 3, known: float = 0.5) -> None:
        if not 1 <= others <= len(ANIMALS) - 2 or not 0 <= known <= 1:
            raise PacelineError(
                f"idk takes 1 to {len(ANIMALS) - 2} others and known from 0 to 1, not {others}, {known}."
            )
        self.others, self.known = others, known

    def item(self, words: Words, length: int, seed: int) -> Item:
        """See `Evaluation.item`."""
        draw = random.Random(derive(seed, "idk", self.others))
        asked, *rest = draw.sample(ANIMALS, self.others + 1)
        colours = draw.sample(COLOURS, len(LETTERS) - 1)
        answered = draw.random() < self.known
        right = draw.choice(colours)
        facts = [(animal, draw.choice(colours)) for animal in rest]
        if answered:
            facts.insert(draw.randrange(len(facts) + 1), (asked, right))
        told = [f"The magic colour of the {animal} is {colour}.\n" for animal, colour in facts]
        offered = [*colours, UNKNOWN]
        draw.shuffle(offered)
        answer = LETTERS[offered.index(right if answered else UNKNOWN)]
        choices = " ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, offered, strict=True))
        tail = f"\nWhat is the magic colour of the {asked}? {choices}\nAnswer: ("
        filler = random.Random(derive(seed, "idk filler", length))
        head = "Read the text. Where it does not tell, the answer is I don't know.\n\n"
        prompt = fill(words, length, head, told, tail, lambda: _rambling(filler), filler)
        return Item(prompt, answer, tuple(LETTERS), tuple(told), {"asked": asked, "answered": str(answered)})

    def score(self, answer: str, item: Item) -> float:
        """1 where the first single letter A to D is the right one."""
        found = re.search(r"\b([A-D])\b", answer)
        return float(found is not None and found[1] == item.answer)


def _rambling(draw: random.Random) -> str:
    return f"{draw.choice(PLACES).capitalize()} {draw.choice(DEEDS)}.\n"


def example() -> list[Evaluation]:
    """As it comes, and with questions that the text always answers."""
    return [IDK(), IDK(others=1, known=1.0)]
