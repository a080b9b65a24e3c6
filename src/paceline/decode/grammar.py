"""Grammars: only tokens that a regular expression, a JSON schema or a Lark grammar allows can be drawn.

    logits'_t = logits_t where the grammar allows the token after those generated so far, minus infinity elsewhere

llguidance says which are allowed; `_matcher.py` asks it. The grammar begins where the prompt ends. Once it is complete
only the token that ends a text is allowed; where there is none, generating ends there. The state keeps the tokens, and
the matcher goes where they lead, taking back and reading on, so drafts and beams work over it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.growing import Growing, append
from paceline.core.state import LM, State
from paceline.decode._choice import Choice
from paceline.decode._contract import Run, Stepwise, Strategy
from paceline.decode._guided import Guide, GuidedLM
from paceline.decode._matcher import Matcher

PAPERS = (
    Source(title="Efficient Guided Generation for Large Language Models", arxiv="2307.09702", year=2023),
    Source(title="llguidance: low-level guidance for constrained generation", year=2024, says="the library used"),
)


class Grammar(Stepwise):
    """Draws what a grammar allows. Exactly one of `regex`, `json_schema` and `lark` is given.

    Args:
        regex: a regular expression that the whole text matches.
        json_schema: a JSON schema, as a text or a mapping.
        lark: a grammar in llguidance's dialect of Lark, with a rule `start`.
        tokenizer: a fast one of transformers, or the bytes of each token. Default: the model's own `tokenizer`, or
            bytes where the model has 256 tokens.
        end: the token that ends a text. Default: the tokenizer's, if it has one.
        temperature: of the choice; 0 is greedy. So are `top_k` and `top_p`.

    Raises:
        PacelineError: not one grammar, or one that is malformed; later, one that these tokens cannot satisfy.
    """

    def __init__(
        self,
        regex: str | None = None,
        json_schema: str | Mapping[str, Any] | None = None,
        lark: str | None = None,
        tokenizer: Any = None,
        end: int | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> None:
        super().__init__(Choice(temperature, top_k, top_p))
        self.text = _grammar(regex, json_schema, lark)
        self.tokenizer, self.end = tokenizer, end

    def prepare(self, lm: LM) -> LM:
        """The model under the grammar, which begins where `run` does."""
        return self.over(lm, None)

    def over(self, lm: LM, start: int | None) -> GuidedLM:
        """The model under the grammar from token `start` on, for other strategies: the prompt's length."""
        tokenizer = getattr(lm, "tokenizer", None) if self.tokenizer is None else self.tokenizer
        return GuidedLM(lm, Allowed(Matcher(self.text, tokenizer, lm.vocab_size, self.end), start))

    def run(self, run: Run) -> Iterator[list[int]]:
        """See `Strategy.run`."""
        guide = cast(Allowed, cast(GuidedLM, run.lm).guide)
        guide.begin(run.prompt)
        run.logits = guide.mask(run.logits, [])
        for block in super().run(run):
            yield block
            if guide.complete(run.ids[run.prompt :]):
                return


class Allowed(Guide):
    """Minus infinity for what a grammar does not allow.

    Args:
        matcher: the grammar.
        start: how many tokens come before it; None: all, until it is set.
    """

    def __init__(self, matcher: Matcher, start: int | None) -> None:
        self.matcher, self.start = matcher, start

    def begin(self, prompt: int) -> None:
        """See `Guide.begin`."""
        self.start = prompt

    def initial_state(self, batch: int) -> State:
        """The tokens, (b, 1, 0, 1)."""
        return Growing(({"ids": torch.empty(batch, 1, 0, 1, dtype=torch.long)},), 0, of="grammar")

    def __call__(self, logits: Tensor, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Guide.__call__`."""
        every = append(state.layers[0]["ids"], ids[:, None, :, None].cpu())
        before, length = state.length, every.shape[2]
        if self.start is not None and length >= self.start:
            logits = logits.clone()
            for row, tokens in enumerate(every[:, 0, self.start :, 0].tolist()):
                for end in range(max(before + 1, self.start), length + 1):
                    place = end - before - 1
                    logits[row, place] = self.mask(logits[row, place], tokens[: end - self.start])
        return logits, Growing(({"ids": every},), length, of="grammar")

    def mask(self, logits: Tensor, tokens: Sequence[int]) -> Tensor:
        """Logits (v,) after tokens of the grammar; after others, which are drafts that will be refused, as they are."""
        allowed = self.matcher.allowed(tokens)
        if allowed is None:
            return logits
        if not allowed.any():
            raise PacelineError("grammar: the text is complete, and no token ends it: name one by `end`.")
        return logits.masked_fill(~allowed.to(logits.device), -math.inf)

    def complete(self, tokens: Sequence[int]) -> bool:
        """Whether nothing can follow, not even a token that ends the text."""
        allowed = self.matcher.allowed(tokens)
        return allowed is not None and not allowed.any()


def _grammar(regex: str | None, schema: str | Mapping[str, Any] | None, lark: str | None) -> str:
    """llguidance's form, checked."""
    if sum(given is not None for given in (regex, schema, lark)) != 1:
        raise PacelineError("grammar: give one of regex, json_schema and lark.")
    try:
        from llguidance import LLMatcher
    except ImportError as error:
        raise PacelineError("grammar needs llguidance: install paceline[grammar].") from error
    try:
        if regex is not None:
            text = LLMatcher.grammar_from_regex(regex)
        elif lark is not None:
            text = LLMatcher.grammar_from_lark(lark)
        else:
            text = LLMatcher.grammar_from_json_schema(
                json.loads(schema) if isinstance(schema, str) else dict(schema or {})
            )
    except ValueError as error:
        raise PacelineError(f"grammar: the JSON schema is not JSON ({_first(error)}).") from error
    if complaint := LLMatcher.validate_grammar(text):
        kind = "regular expression" if regex is not None else "Lark grammar" if lark is not None else "JSON schema"
        if not complaint.startswith("WARNING"):
            raise PacelineError(f"grammar: the {kind} cannot be used ({_first(complaint)}).")
    return text


def _first(complaint: object) -> str:
    return str(complaint).strip().splitlines()[0].rstrip(".: ")


def example(lm: LM) -> list[Strategy]:
    """Tokens that are numbers: the first four only, greedy; and numbers in any order, drawn."""
    few = "|".join(f"{token};" for token in range(min(4, lm.vocab_size)))
    return [
        Grammar(regex=f"({few})*", tokenizer=_numbers(lm)),
        Grammar(regex="([0-9]+;)*", tokenizer=_numbers(lm), temperature=0.9),
    ]


def greedy_limit(lm: LM) -> list[Strategy]:
    """A grammar of all texts."""
    return [Grammar(regex="([0-9]+;)*", tokenizer=_numbers(lm))]


def _numbers(lm: LM) -> list[bytes]:
    return [f"{token};".encode() for token in range(lm.vocab_size)]
