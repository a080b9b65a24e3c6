"""The engine: `generate(lm, prompt, strategy)` streams tokens, stops, counts, and reads no prefix twice.

Several prompts go side by side where the strategy chooses token by token and the model reads padded batches; otherwise
one after the other, with the same tokens.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.state import LM, State
from paceline.decode._contract import PIECE, Counts, Run, Stepwise, Strategy, read_counted


@dataclass
class Past:
    """What a model has read before, to go on from: the longest common beginning is not read again."""

    ids: list[int] = field(default_factory=list)
    """The tokens that `state` is of."""
    state: State | None = None

    def resume(self, ids: Sequence[int], of: str) -> tuple[State | None, int]:
        """A state of the beginning of `ids` for the model `of`, and its length: never all, for logits are needed."""
        if self.state is None or self.state.of != of:
            return None, 0
        same = 0
        for mine, theirs in zip(self.ids, ids[:-1], strict=False):
            if mine != theirs:
                break
            same += 1
        back = self.state.length - same
        if same == 0 or back > self.state.kept:
            return None, 0
        return self.state.rewind(back), same


class Stream:
    """Tokens as they come; afterwards, what came and what it took."""

    def __init__(self, blocks: Iterator[int], counts: Counts, past: Past) -> None:
        self.tokens: list[int] = []
        self.counts, self.past = counts, past
        self.stopped = ""
        """Why it ended: `length`, `stop`, `context`, or `end` where the strategy had no more; else empty."""
        self._blocks = blocks

    def __iter__(self) -> Iterator[int]:
        """The next tokens."""
        return self

    def __next__(self) -> int:
        """The next token."""
        token = next(self._blocks)
        self.tokens.append(token)
        return token

    def all(self) -> list[int]:
        """Every token, once all have come."""
        for _ in self:
            pass
        return self.tokens


def generate(
    lm: LM,
    prompt: Tensor | Sequence[int],
    strategy: Strategy,
    tokens: int = 128,
    *,
    stop: Sequence[int] = (),
    seed: int = 0,
    past: Past | None = None,
) -> Stream:
    """Continue a prompt.

    Args:
        lm: any model of the protocol.
        prompt: token numbers, at least one.
        strategy: how tokens are chosen.
        tokens: how many to generate at most.
        stop: tokens that end it, such as the tokenizer's end of text; the one that does is the last of the stream.
        seed: of every chance.
        past: of an earlier stream with the same model (`stream.past`): what it has read is not read again. It is
            brought up to date.

    Returns:
        An iterator of tokens, made as they are asked for.

    Raises:
        PacelineError: a prompt that is empty, outside the vocabulary or longer than the model reads, or what the
            strategy cannot do with this model; later, logits that are not numbers.
    """
    ids = check_prompt(lm, prompt)
    if tokens < 1:
        raise PacelineError(f"At least one token must be generated, not {tokens}.")
    counts, past = Counts(), past or Past()
    run = Run(strategy.prepare(lm), ids, torch.Generator().manual_seed(seed), counts, tokens, frozenset(stop))
    stream = Stream(iter(()), counts, past)
    stream._blocks = _tokens(stream, run, strategy, past)
    return stream


def _tokens(stream: Stream, run: Run, strategy: Strategy, past: Past) -> Iterator[int]:
    began, counts, room = time.perf_counter(), run.counts, run.room
    read_prompt(run, past, strategy.keep)
    try:
        for block in strategy.run(run):
            for token in block:
                run.ids.append(token)
                counts.made += 1
                counts.seconds = time.perf_counter() - began
                counts.first = counts.first or counts.seconds
                if token in run.stop:
                    stream.stopped = "stop"
                elif counts.made >= room:
                    stream.stopped = "length" if room == run.limit else "context"
                yield token
                if stream.stopped:
                    return
        stream.stopped = "end"
    finally:
        past.ids, past.state = run.ids[: run.state.length], run.state
        counts.more = strategy.meters()
        counts.state_bytes = max(counts.state_bytes, run.state.nbytes)


def read_prompt(run: Run, past: Past | None = None, keep: int = 0) -> None:
    """Read what of the prompt the past has not."""
    if getattr(run.lm, "looks_ahead", False):  # its layers read a prompt as a whole
        with torch.no_grad():
            logits, run.state = run.lm.read_prompt(torch.tensor([run.ids]))  # type: ignore[attr-defined]
        run.counts.calls, run.counts.read, run.logits = 1, len(run.ids), logits[0, -1]
        run.state = run.state.keeping(keep)
        return
    state, run.counts.reused = (past or Past()).resume(run.ids, run.state.of)
    run.state = run.state if state is None else state
    rest = torch.tensor([run.ids[run.counts.reused :]])
    pieces = list(rest.split(PIECE, dim=1))
    for piece in pieces[:-1]:
        _, run.state = read_counted(run.lm, piece, run.state, run.counts, end=True)
    run.state = run.state.keeping(keep)
    logits, run.state = read_counted(run.lm, pieces[-1], run.state, run.counts, end=True)
    run.logits = logits[0, -1]


def check_prompt(lm: LM, prompt: Tensor | Sequence[int]) -> list[int]:
    """The prompt's tokens.

    Raises:
        PacelineError: there are none, or some that the model does not know, or too many.
    """
    ids = [int(token) for token in (prompt.flatten().tolist() if isinstance(prompt, Tensor) else prompt)]
    if not ids:
        raise PacelineError("The prompt is empty: give at least one character to continue from.")
    if not 0 <= min(ids) <= max(ids) < lm.vocab_size:
        raise PacelineError(f"The prompt has tokens outside the model's vocabulary of {lm.vocab_size:,}.")
    longest: int | None = getattr(lm, "longest", None)
    if longest is not None and len(ids) >= longest:
        raise PacelineError(f"The prompt has {len(ids):,} tokens and the model reads {longest:,}: give its end only.")
    return ids


def generate_batch(
    lm: LM, prompts: Sequence[Tensor | Sequence[int]], strategy: Strategy, tokens: int = 128, *,
    stop: Sequence[int] = (), seed: int = 0,
) -> tuple[list[list[int]], Counts]:  # fmt: skip
    """Continue several prompts, of any lengths, side by side where that can be; arguments as in `generate`.

    Each sequence gets the tokens that it would get alone where the strategy is greedy, and draws of its own otherwise.

    Returns:
        The tokens of each, and what all took together.
    """
    if not prompts:
        return [], Counts()
    ids = [check_prompt(lm, prompt) for prompt in prompts]
    ready = strategy.prepare(lm)
    pads = callable(getattr(ready, "read_padded", None)) and getattr(ready, "pads", False)
    if not isinstance(strategy, Stepwise) or type(strategy).run is not Stepwise.run or len(ids) == 1 or not pads:
        return _one_by_one(lm, ids, strategy, tokens, stop, seed)
    lm, counts, began, ends = ready, Counts(), time.perf_counter(), frozenset(stop)
    made: list[list[int]] = [[] for _ in ids]
    draws = torch.Generator().manual_seed(seed)
    shared = _common([prompt[:-1] for prompt in ids])
    logits, state = lm.read_padded(ids, shared)  # type: ignore[attr-defined]
    counts.calls, counts.read, counts.reused = 1, sum(map(len, ids)) - shared * (len(ids) - 1), shared * (len(ids) - 1)
    rows = list(range(len(ids)))
    for step in range(tokens):
        chosen = strategy.choice.draw(logits[:, -1], draws).tolist()
        for row, token in zip(rows, chosen, strict=True):
            made[row].append(token)
            counts.made += 1
        counts.first = counts.first or time.perf_counter() - began
        alive = [i for i, token in enumerate(chosen) if token not in ends]
        if not alive or step == tokens - 1:
            break
        if len(alive) < len(rows):
            state, rows = state.select(torch.tensor(alive)), [rows[i] for i in alive]
        logits, state = read_counted(lm, torch.tensor([[chosen[i]] for i in alive]), state, counts)
    counts.state_bytes = state.nbytes
    counts.seconds = time.perf_counter() - began
    return made, counts


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all begin with."""
    return next((i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), min(map(len, rows)))


def _one_by_one(
    lm: LM, ids: list[list[int]], strategy: Strategy, tokens: int, stop: Sequence[int], seed: int
) -> tuple[list[list[int]], Counts]:
    made, total, past = [], Counts(), Past()
    for index, prompt in enumerate(ids):
        stream = generate(lm, prompt, strategy, tokens, stop=stop, seed=seed + index, past=past)
        made.append(stream.all())
        for name in ("calls", "read", "made", "reused", "drafted", "accepted", "helper_calls", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(stream.counts, name))
        total.first = total.first or stream.counts.first
        total.state_bytes = max(total.state_bytes, stream.counts.state_bytes)
    return made, total
