"""Pipelines that show demonstrations before a question, whichever way they are chosen; and two plain ways to choose."""

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence

from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.prompt._components import _retriever
from paceline.prompt._contract import Answer, Counted, Pipeline, Spent, given
from paceline.prompt._graph import Component
from paceline.prompt._kinds import Kind
from paceline.retrieve._contract import Retriever

TEMPLATE = "{question}\n{answer}\n\n"


class Template:
    """How a demonstration is written, such as `Question: {question}\\nAnswer: {answer}\\n\\n`.

    Raises:
        PacelineError: it does not hold both fields, the question first, each once.
    """

    def __init__(self, text: str) -> None:
        before, asked, rest = text.partition("{question}")
        between, answered, after = rest.partition("{answer}")
        if not asked or not answered or "{question}" in between + after or "{answer}" in before + after:
            raise PacelineError(
                f"The template {text[:60]!r} must hold {{question}} and then {{answer}}, each once and as written here."
            )
        self.before, self.between, self.after = before, between, after

    def asked(self, question: str) -> str:
        """All that comes before an answer. A blank at its end is left out: models write it with the answer's word."""
        return f"{self.before}{question}{self.between}".rstrip(" ")

    def shown(self, question: str, answer: str) -> str:
        """A demonstration."""
        return f"{self.before}{question}{self.between}{answer}{self.after}"


class Shots(Pipeline):
    """Shows `k` demonstrations, the best last, and asks: one call. A subclass says in which order they are good.

    Args:
        demonstrations: pairs of a question and its answer.
        k: how many are shown.
        template: how each is written; see `Template`.
        tokens: the most that the answer takes.
        stop: texts before which it ends.

    Raises:
        PacelineError: no demonstrations, some that are no pairs of texts, fewer than k, or no tokens.
    """

    def __init__(
        self,
        demonstrations: Sequence[tuple[str, str]],
        k: int = 1,
        template: str = TEMPLATE,
        tokens: int = 48,
        stop: Sequence[str] = ("\n",),
    ) -> None:
        pairs = [tuple(pair) for pair in demonstrations if not isinstance(pair, str)]
        if not pairs or len(pairs) < len(demonstrations) or not all(map(_is_pair, pairs)):
            raise PacelineError("Demonstrations are pairs of a question and its answer: give at least one, none blank.")
        if not 1 <= k <= len(pairs) or tokens < 1:
            raise PacelineError(
                f"k={k} of {len(pairs)} demonstrations and {tokens} tokens cannot be: give at least one of each, and "
                "no more than there are."
            )
        self.demonstrations = [(question, answer) for question, answer in pairs]
        self.k, self.template, self.tokens = k, Template(template), tokens
        self.stop = (stop,) if isinstance(stop, str) else tuple(stop)

    @abstractmethod
    def rank(self, question: str) -> list[int]:
        """Numbers of the demonstrations, the best for this question first."""

    def shown(self, question: str) -> list[str]:
        """The demonstrations for a question as they are written, the best last."""
        return [self.template.shown(*self.demonstrations[i]) for i in reversed(self.rank(question)[: self.k])]

    def run(self, inputs: Mapping[str, str], model: Counted) -> Answer:
        """See `Pipeline.run`; its step `demonstrations` tells what was shown."""
        (question,) = given(inputs, "question")
        shown = "".join(self.shown(question))
        steps = (("demonstrations", shown),)
        try:
            text = model.complete(shown + self.template.asked(question), self.tokens, self.stop)
        except Spent:
            return Answer("", steps, False)
        return Answer(text.strip(), steps)

    def component(self) -> Component:
        """For a graph of `studio`: `texts` for a `question`, in place of `demonstrations`."""
        return Component(
            lambda _, values: {"texts": tuple(self.shown(values["question"]))},
            {"question": Kind.TEXT}, {"texts": Kind.TEXTS},
        )  # fmt: skip


class Nearest(Shots):
    """Those whose questions are nearest to the one that is asked, by any way to search.

    Args:
        demonstrations: see `Shots`.
        how: see `retrieve`: `bm25`, `dense` (MiniLM), or a retriever.
        settings: of `Shots`.
    """

    def __init__(
        self, demonstrations: Sequence[tuple[str, str]], how: str | Retriever = "bm25", **settings: object
    ) -> None:
        super().__init__(demonstrations, **settings)  # type: ignore[arg-type]
        self._search = _retriever(how) if isinstance(how, str) else how
        self._search.index([question for question, _ in self.demonstrations])

    def rank(self, question: str) -> list[int]:
        """See `Shots.rank`."""
        found: list[int] = self._search.search([question], len(self.demonstrations)).ids[0].tolist()
        return found


class Drawn(Shots):
    """Any of them, drawn for each question anew, and the same whenever it is asked again."""

    def __init__(self, demonstrations: Sequence[tuple[str, str]], seed: int = 0, **settings: object) -> None:
        super().__init__(demonstrations, **settings)  # type: ignore[arg-type]
        self.seed = seed

    def rank(self, question: str) -> list[int]:
        """See `Shots.rank`."""
        numbers = range(len(self.demonstrations))
        return random.Random(derive(self.seed, "shots", question)).sample(numbers, len(numbers))


def _is_pair(pair: tuple[object, ...]) -> bool:
    return len(pair) == 2 and all(isinstance(text, str) and text.strip() for text in pair)
