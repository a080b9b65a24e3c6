"""Ways to decode a given model, side by side: each cell times a contestant and plain greedy decoding in turn.

Nothing is trained. The measure is how many times as fast as greedy decoding a contestant continues the same prompts, in
the same process, prompt by prompt: what else the machine does falls on both. Whether the tokens are greedy's own is a
meter, and so are the calls of the model and the bytes of its state.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.data._contract import Batch, Task
from paceline.decode._generate import Stream, generate
from paceline.lm.open import Opened, open_lm, strategy
from paceline.race.contestant import Contestant, Event, Job, Outcome, Report

GREEDY = "greedy"


class Prompts(Task):
    """Continuing prompts, in times greedy decoding's speed.

    Args:
        texts: the prompts.
        model: a folder, or a known model's name.
        tokens: to generate after each.
        items: how many prompts a seed draws.

    Raises:
        PacelineError: no prompt, or no token.
    """

    name = "decoding"
    title = "Decoding"
    metric = "times greedy's speed"
    better = "higher"
    floor = None
    ceiling = None

    def __init__(self, texts: Sequence[str], model: str, tokens: int = 64, items: int = 4) -> None:
        self.texts = tuple(text for text in texts if text.strip())
        if not self.texts:
            raise PacelineError("There is no prompt: give a file with a text in it, prompts apart by empty lines.")
        if tokens < 2 or items < 1:
            raise PacelineError(f"Decoding needs at least 2 tokens and 1 prompt, not {tokens} and {items}.")
        self.model, self.length, self.items = model, tokens, min(items, len(self.texts))
        self.vocab_size = 0

    def drawn(self, seed: int) -> list[str]:
        """The prompts of a seed."""
        generator = torch.Generator().manual_seed(derive(seed, "prompts"))
        return [self.texts[i] for i in torch.randperm(len(self.texts), generator=generator)[: self.items].tolist()]

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Nothing is trained."""
        raise NotImplementedError

    def evaluation(self) -> Batch:
        """Prompts are texts, whose tokens are the model's matter."""
        raise NotImplementedError

    def describe(self) -> str:
        """See `Task.describe`."""
        digest = hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()[:8]
        return (
            f"Continue {self.items} of {len(self.texts)} prompts (digest {digest}) by {self.length} tokens with "
            f"{self.model}; a seed draws the prompts."
        )

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Never asked: there are no gates here."""
        raise NotImplementedError


class Decoding(Contestant):
    """A way to decode.

    Args:
        name: what `lm.open.strategy` reads, such as `lookup(guesses=8)` or `int8 + lookup`.
    """

    settings = (0.0,)

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, event: Event) -> None:
        """See `Contestant.check`."""
        if not isinstance(event.task, Prompts):
            raise PacelineError(f"{self.name} decodes: it races on prompts, not on {event.task.name}.")

    def run(self, job: Job, report: Report) -> Outcome:
        """See `Contestant.run`."""
        task = job.event.task
        assert isinstance(task, Prompts)
        base = open_lm(task.model)
        changed, how = strategy(self.name, base)
        _, greedy = strategy(GREEDY, base)
        prompts = [base.words.encode(text) for text in task.drawn(job.seed)]
        _timed(base, prompts[0], greedy, 2, 0)  # what a first call prepares is on nobody's bill
        _timed(changed, prompts[0], how, 2, 0)
        began, items, mine, theirs, same = time.monotonic(), [], [], [], 0.0
        for number, prompt in enumerate(prompts):
            plain = _timed(base, prompt, greedy, task.length, number)
            stream = _timed(changed, prompt, how, task.length, number)
            items.append(_rate(stream) / _rate(plain))
            mine.append(stream)
            theirs.append(plain)
            same += float(stream.tokens == plain.tokens)
            report(number + 1, len(prompts), items[-1])
        made = sum(stream.counts.made for stream in mine)
        meters = {
            "same_as_greedy": same / len(prompts),
            "tokens_per_second": made / sum(stream.counts.seconds for stream in mine),
            "greedy_tokens_per_second": sum(s.counts.made for s in theirs) / sum(s.counts.seconds for s in theirs),
            "calls_per_token": sum(stream.counts.calls for stream in mine) / made,
            "state_mib": max(stream.counts.state_bytes for stream in mine) / 2**20,
            **{name: fmean(s.counts.more.get(name, 0.0) for s in mine) for name in mine[0].counts.more},
        }
        calls = sum(stream.counts.calls + stream.counts.helper_calls for stream in mine)
        read = sum(stream.counts.read for stream in mine)
        bill = Ledger(
            read, 0.0, time.monotonic() - began, calls, _parameters(changed),
            max(stream.counts.state_bytes for stream in mine),
        )  # fmt: skip
        return Outcome(items, [], bill, meters)


def _timed(opened: Opened, prompt: Sequence[int], how: object, tokens: int, seed: int) -> Stream:
    stream = generate(opened.lm, prompt, how, tokens, stop=opened.ends, seed=seed)  # type: ignore[arg-type]
    stream.all()
    return stream


def _rate(stream: Stream) -> float:
    """Tokens a second, the prompt's reading included."""
    return stream.counts.made / stream.counts.seconds


def _parameters(opened: Opened) -> int:
    count = getattr(opened.lm, "parameters", None)
    return sum(p.numel() for p in count()) if callable(count) else 0


def read_prompts(path: Path) -> list[str]:
    """The prompts in a file: texts apart by empty lines; in .jsonl, the field `prompt` or `text` of each line.

    Raises:
        PacelineError: it cannot be read, or has none.
    """
    try:
        content = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise PacelineError(f"Cannot read --prompts {path} ({error.strerror}).") from error
    if path.suffix == ".jsonl":
        return [_field(line, path) for line in content.splitlines() if line.strip()]
    return [text for text in content.split("\n\n") if text.strip()]


def _field(line: str, path: Path) -> str:
    try:
        record = json.loads(line)
        text = record.get("prompt", record.get("text"))
    except (ValueError, AttributeError, RecursionError) as error:
        raise PacelineError(f"A line of {path} is not a JSON object with a prompt: {line[:60]!r}.") from error
    if not isinstance(text, str):
        raise PacelineError(f"A line of {path} has no text under `prompt` or `text`: {line[:60]!r}.")
    return text
