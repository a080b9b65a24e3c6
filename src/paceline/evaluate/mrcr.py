"""MRCR, multi-round co-reference resolution: repeat one of many pieces that were asked for earlier in a conversation.

    User: Write a poem about penguins.       several alike but for topic and form; two of them for the same topic
    Model: ...                               and form where there are two rounds
    ...
    User: Add "x7Qa2" before the second poem about penguins, and repeat it.

Told are the pieces that could be confused; others, on other topics, fill the conversation. A written answer that begins
with the wanted sign scores difflib's ratio of what follows to the piece, 2 * matches / both lengths; another scores 0.
Options: the confusable pieces.

Departures: the paper's pieces are written by a large model; here they are drawn from a small grammar, so that they come
in any number and follow from a seed. The sign before the answer is that of the paper's public successor.
"""

import difflib
import random

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.evaluate._contract import Evaluation, Item, Words, fill

PAPERS = (
    Paper(
        title="Michelangelo: Long Context Evaluations Beyond Haystacks via Latent Structure Queries",
        arxiv="2409.12640",
        year=2024,
        says="models lose which of several like pieces of a long conversation is meant",
    ),
)
FORMS = ("poem", "riddle", "tale", "speech", "letter")
TOPICS = ("penguins", "tides", "kettles", "bridges", "owls", "clocks", "snow", "trains", "gardens", "mirrors")
OTHER = ("maps", "bread", "violins", "harbours", "chess", "lanterns", "rivers", "paint")
SUBJECTS = ("A quiet friend", "The old keeper", "My sister", "Nobody", "The whole town", "One small child")
VERBS = ("waits for", "sings of", "dreams about", "forgets", "walks towards", "remembers", "counts")
ENDS = ("before the rain", "in the morning light", "without a word", "as winter ends", "far from home", "once more")
ORDINALS = ("first", "second", "third", "fourth")
SIGN = 6


class MRCR(Evaluation):
    """Repeat the piece that is meant.

    Args:
        rounds: how many pieces of the same form and topic there are, 1 to 4.
        rivals: how many others share the form or the topic.

    Raises:
        PacelineError: a number out of its range.
    """

    title = "Multi-round co-reference resolution"

    def __init__(self, rounds: int = 2, rivals: int = 2) -> None:
        if not 1 <= rounds <= len(ORDINALS) or not 1 <= rivals <= 8:
            raise PacelineError(f"mrcr takes 1 to {len(ORDINALS)} rounds and 1 to 8 rivals, not {rounds} and {rivals}.")
        self.rounds, self.rivals = rounds, rivals
        self.floor = 1 / (rounds + rivals)

    def item(self, words: Words, length: int, seed: int) -> Item:
        """See `Evaluation.item`."""
        draw = random.Random(derive(seed, "mrcr", self.rounds, self.rivals))
        form, topic = draw.choice(FORMS), draw.choice(TOPICS)
        asked = [(form, topic)] * self.rounds
        for number in range(self.rivals):
            same = number % 2
            asked.append(
                (form, draw.choice([t for t in TOPICS if t != topic]))
                if same
                else (draw.choice([f for f in FORMS if f != form]), topic)
            )
        draw.shuffle(asked)
        pieces = [_piece(about, draw) for _, about in asked]
        alike = [piece for piece, what in zip(pieces, asked, strict=True) if what == (form, topic)]
        which = draw.randrange(self.rounds)
        sign = "".join(draw.choice("abcdefghkmnpqrstuvwxyz23456789") for _ in range(SIGN))
        told = [_turn(*what, piece) for what, piece in zip(asked, pieces, strict=True)]
        filler = random.Random(derive(seed, "mrcr filler", length))
        place = f"the {ORDINALS[which]} {form}" if self.rounds > 1 else f"the {form}"
        tail = f"User: Write {sign}, then repeat {place} about {topic}, word by word.\nModel: {sign} "
        head = "A conversation. The model answers each request.\n\n"
        prompt = fill(words, length, head, told, tail, lambda: _other(filler), filler)
        options = list(pieces)
        return Item(prompt, alike[which], tuple(options), tuple(told), {"sign": sign})

    def score(self, answer: str, item: Item) -> float:
        """difflib's ratio to the piece; the prompt has set the sign, which an answer may repeat."""
        said = answer.strip().removeprefix(item.facts["sign"]).strip().partition("\nUser:")[0].strip()
        return difflib.SequenceMatcher(None, said, item.answer, autojunk=False).ratio()


def _piece(topic: str, draw: random.Random) -> str:
    lines = [f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {topic} {draw.choice(ENDS)}." for _ in range(2)]
    return " ".join(lines)


def _turn(form: str, topic: str, piece: str) -> str:
    return f"User: Write a {form} about {topic}.\nModel: {piece}\n\n"


def _other(draw: random.Random) -> str:
    topic = draw.choice(OTHER)
    return _turn(draw.choice(FORMS), topic, _piece(topic, draw))


def example() -> list[Evaluation]:
    """As it comes, and with one piece of the kind."""
    return [MRCR(), MRCR(rounds=1, rivals=1)]
