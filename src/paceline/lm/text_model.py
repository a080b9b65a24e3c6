"""A language model as pipelines see it: text in, text out, and what continuations cost.

`text_model("smollm2")` opens a saved or known model, `text_model("http://host/v1#name")` asks an endpoint. Prompts are
read in pieces of `PIECE` tokens from their beginning, and the state after each whole piece is kept for the next prompt
that begins alike. So a document that is asked about again is not read again, and what an opened model says does not
depend on what it was asked before: no sum is taken in another order.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.state import State
from paceline.decode._generate import Past, check_prompt, generate
from paceline.decode.greedy import Greedy
from paceline.lm.endpoint import KEY, Endpoint
from paceline.lm.open import Opened, open_lm
from paceline.lm.padded import lots
from paceline.lm.quick import quicken
from paceline.lm.written import TextModel, Written

PIECE = 256
"""Tokens."""
KEPT = 64
"""Whole pieces of earlier prompts whose states are kept."""
ROOM = 2048
"""Tokens, padding included, whose logits are held at once."""


class OpenedText:
    """A model that was opened, as a `TextModel`.

    Args:
        opened: of `lm.open.open_lm`.
        chat: whether prompts are put as a user's turn, in the form that the tokenizer has for it. Default: as they are.

    Raises:
        PacelineError: there is no such form.
    """

    def __init__(self, opened: Opened, chat: bool = False) -> None:
        if chat and not getattr(_tokenizer(opened), "chat_template", None):
            raise PacelineError(f"{opened.name} has no form for chats: leave chat out.")
        self.opened, self.chat = opened, chat
        self.lm: Any = quicken(opened.lm)
        self._kept: dict[tuple[int, ...], State] = {}
        """States after whole pieces, by all tokens read; those used last come last."""

    def complete(self, prompt: str, tokens: int, stop: Sequence[str] = ()) -> Written:
        """See `TextModel.complete`.

        Raises:
            PacelineError: an empty prompt, one longer than the model reads, no tokens asked for, or an empty stop.
        """
        if not all(stop):
            raise PacelineError("An empty text stops every answer before it begins: leave it out of stop.")
        ids, words = self._encode(prompt), self.opened.words
        with _evaluating(self.lm):
            past = self._past(ids)
            stream = generate(self.lm, ids, Greedy(), tokens, stop=self.opened.ends, past=past)
            text = ""
            for token in stream:
                if token in self.opened.ends:
                    break
                text = words.decode(stream.tokens)
                if found := [at for at in map(text.find, stop) if at >= 0]:
                    text = text[: min(found)]
                    break
        return Written(text, len(ids), len(stream.tokens))

    @torch.no_grad()
    def nats(self, prompt: str, continuations: Sequence[str]) -> tuple[list[float], int]:
        """See `TextModel.nats`. The prompt is read once for all.

        Tokens may reach over the end of the prompt. Whatever of the prompt is not in whole tokens before all
        continuations counts with each of them, so they can be compared in any case.

        Raises:
            PacelineError: an empty prompt or continuation, or more tokens than the model reads.
        """
        if not continuations or not all(continuations):
            raise PacelineError("A continuation is empty: give texts of at least one character.")
        encoded = [self._encode(prompt, more) for more in continuations]
        shared = _common([self._encode(prompt), *encoded])
        if not shared:
            raise PacelineError("No token of the prompt is before the continuations: give a prompt to go on from.")
        with _evaluating(self.lm):
            state = self._read(encoded[0][: shared - 1])
            tails = [ids[shared - 1 :] for ids in encoded]
            if any(len(tail) < 2 for tail in tails):
                raise PacelineError("A continuation adds no token to the prompt: give more of it.")
            costs = self._costs(tails, state)
        return costs, shared - 1 + sum(map(len, tails))

    def count(self, text: str) -> int:
        """See `TextModel.count`; with what the form of a chat adds."""
        return len(self._tokens(self._form(text)))

    def _form(self, prompt: str) -> str:
        if not self.chat:
            return prompt
        turns = [{"role": "user", "content": prompt}]
        return str(_tokenizer(self.opened).apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _tokens(self, text: str) -> list[int]:
        return self.opened.words.encode(text)

    def _encode(self, prompt: str, more: str = "") -> list[int]:
        return check_prompt(self.lm, self._tokens(self._form(prompt) + more))

    def _past(self, ids: Sequence[int]) -> Past:
        """The state after the whole pieces that come before the last token."""
        whole = (len(ids) - 1) // PIECE * PIECE
        if getattr(self.lm, "looks_ahead", False) or not whole:
            return Past()
        return Past(list(ids[:whole]), self._read(ids[:whole]))

    @torch.no_grad()
    def _read(self, ids: Sequence[int]) -> State:
        """The state after these tokens."""
        if getattr(self.lm, "looks_ahead", False):
            if not ids:
                raise PacelineError(
                    f"{self.opened.name} reads prompts as a whole: give a prompt of two tokens or more."
                )
            state: State = self.lm.read_prompt(torch.tensor([list(ids)]))[1]
            return state
        done = next((n for n in range(len(ids) // PIECE * PIECE, 0, -PIECE) if tuple(ids[:n]) in self._kept), 0)
        state = self._use(tuple(ids[:done])) if done else self.lm.initial_state(1)
        for start in range(done, len(ids), PIECE):
            piece = ids[start : start + PIECE]
            _, state = self.lm(torch.tensor([list(piece)]), state)
            if len(piece) == PIECE:
                self._keep(tuple(ids[: start + PIECE]), state)
        return state

    def _use(self, ids: tuple[int, ...]) -> State:
        state = self._kept.pop(ids)
        self._kept[ids] = state
        return state

    def _keep(self, ids: tuple[int, ...], state: State) -> None:
        self._kept[ids] = state
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def _costs(self, tails: Sequence[Sequence[int]], state: State) -> list[float]:
        """Nats of all but the first token of each, padded behind, where nothing looks."""
        costs = [math.nan] * len(tails)
        for rows in lots([len(tail) - 1 for tail in tails], ROOM):
            longest = max(len(tails[row]) for row in rows) - 1
            read = [[*tails[row][:-1], *[0] * (longest + 1 - len(tails[row]))] for row in rows]
            forked = state.select(torch.zeros(len(rows), dtype=torch.long))
            forked = self.lm.initial_state(len(rows)) if state.length == 0 else forked
            logits: Tensor = self.lm(torch.tensor(read), forked)[0]
            for row, each in zip(rows, logits, strict=True):
                wanted = torch.tensor(list(tails[row][1:]))
                costs[row] = float(
                    torch.nn.functional.cross_entropy(each[: len(wanted)].double(), wanted, reduction="sum")
                )
        return costs


def text_model(place: str, key: str | None = None, chat: bool | None = None) -> TextModel:
    """The text model at a place.

    Args:
        place: a folder or a known name, as `open_lm` takes it; or the address of an OpenAI-compatible endpoint, up to
            `/v1`, and the model's name there, as `https://host/v1#name`.
        key: of the endpoint. Default: what the environment says under `PACELINE_API_KEY`.
        chat: whether prompts are put as a user's turn. Default: at endpoints, which seldom do otherwise.

    Raises:
        PacelineError: there is none, or it has no form for chats.
    """
    if not place.startswith(("http://", "https://")):
        return OpenedText(open_lm(place), bool(chat))
    url, _, name = place.partition("#")
    if not name:
        raise PacelineError(f"{place[:200]} may serve several models: name one behind a #, as in {url[:200]}#name.")
    return Endpoint(url, name, os.environ.get(KEY) if key is None else key, chat is not False)


def _tokenizer(opened: Opened) -> Any:
    return getattr(opened.words, "tokenizer", None)


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all begin with."""
    return next((i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), min(map(len, rows)))


@contextmanager
def _evaluating(lm: Any) -> Iterator[None]:
    """A model that may still be in training, asked without what belongs to training, such as dropout."""
    whole = getattr(lm, "decoder", lm)
    training = [m for m in whole.modules() if m.training] if isinstance(whole, torch.nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
