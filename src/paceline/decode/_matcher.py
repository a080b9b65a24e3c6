"""Which tokens a grammar allows next: llguidance's matcher, as a function of the tokens so far."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from paceline.core.errors import PacelineError


class Bytes:
    """A tokenizer for llguidance, of tokens that are bytes."""

    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], end: int) -> None:
        self.tokens = list(tokens)
        self.eos_token_id, self.special_token_ids = end, [end]
        self._number = {token: i for i, token in reversed(list(enumerate(self.tokens))) if token and i != end}
        self._longest = max(map(len, self._number), default=1)

    def __call__(self, text: bytes) -> list[int]:
        """The longest token first; bytes that no token begins with are left out."""
        found, at = [], 0
        while at < len(text):
            sizes = range(self._longest, 0, -1)
            size = next((size for size in sizes if text[at : at + size] in self._number), 0)
            if size:
                found.append(self._number[text[at : at + size]])
            at += size or 1
        return found


class Matcher:
    """A grammar over a vocabulary.

    Args:
        grammar: of llguidance.
        tokenizer: of transformers (a fast one), the bytes of each token, or None where tokens are the 256 bytes.
        vocabulary: tokens of the model.
        end: the token that ends a text; default: the tokenizer's, if it has one.

    Raises:
        PacelineError: tokens that are not the model's, or a grammar that no text of them satisfies.
    """

    def __init__(self, grammar: str, tokenizer: Any, vocabulary: int, end: int | None) -> None:
        from llguidance import LLMatcher

        self._vocabulary = vocabulary
        self.end = end if end is not None else getattr(tokenizer, "eos_token_id", None)
        known = self._open(tokenizer)
        self._make = lambda: LLMatcher(known, grammar, log_level=0)
        self._matcher, self._at = self._make(), list[int]()
        self._last: tuple[list[int], Tensor | None] | None = None
        self.allowed([])

    def _open(self, tokenizer: Any) -> Any:
        from llguidance import LLTokenizer
        from llguidance._tokenizer import TokenizerWrapper

        vocabulary = self._vocabulary
        if hasattr(tokenizer, "backend_tokenizer"):
            from llguidance.hf import from_tokenizer

            return from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=self.end)
        if tokenizer is None and vocabulary != 256:
            raise PacelineError(
                f"grammar: the model has {vocabulary:,} tokens, which are not bytes: give its tokenizer."
            )
        tokens = [bytes([byte]) for byte in range(256)] if tokenizer is None else list(tokenizer)
        if len(tokens) != vocabulary:
            raise PacelineError(f"grammar: the model has {vocabulary:,} tokens and the tokenizer {len(tokens):,}.")
        if self.end is None:  # llguidance must have one: a token that the model does not know
            tokens.append(b"")
        end = len(tokens) - 1 if self.end is None else self.end
        return LLTokenizer(TokenizerWrapper(Bytes(tokens, end)), n_vocab=len(tokens))

    def allowed(self, tokens: Sequence[int]) -> Bool[Tensor, " v"] | None:
        """Which tokens may follow; None where these tokens are not of the grammar themselves.

        Nothing at all where the grammar is complete and no token ends a text.

        Raises:
            PacelineError: the grammar goes on, but with no token of this vocabulary.
        """
        if self._last is None or self._last[0] != list(tokens):
            self._last = list(tokens), self._allowed(tokens)
        return self._last[1]

    def _allowed(self, tokens: Sequence[int]) -> Tensor | None:
        mask = torch.zeros(self._vocabulary, dtype=torch.bool)
        if self.end is not None and self.end in tokens:
            before = tokens[: list(tokens).index(self.end)]
            if not self._go(before) or not self._matcher.is_accepting():
                return None
            mask[self.end] = True
            return mask
        if not self._go(tokens):
            return None
        accepting = self._matcher.is_accepting()
        bias = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
        mask = bias[: self._vocabulary] > 0
        mask = torch.cat((mask, mask.new_zeros(self._vocabulary - len(mask))))
        others = int(mask.sum()) - int(self.end is not None and mask[self.end])
        if not others and not accepting:
            raise PacelineError("grammar: no token of this vocabulary can go on here: the grammar asks for others.")
        return mask

    def _go(self, tokens: Sequence[int]) -> bool:
        """Bring the matcher to these tokens; False where the grammar does not know them."""
        same = next(
            (i for i, (x, y) in enumerate(zip(self._at, tokens, strict=False)) if x != y),
            min(len(self._at), len(tokens)),
        )
        back = len(self._at) - same
        if self._matcher.is_error() or (back and not self._matcher.rollback(back)):
            self._matcher, same = self._make(), 0
        rest = list(tokens[same:])
        read = self._matcher.try_consume_tokens(rest) if rest else 0
        self._at = list(tokens[: same + read])
        return read == len(rest)
