"""Ways to decode a given model, side by side. Nothing is trained.

On prompts, each cell times a contestant and plain greedy decoding in turn, prompt by prompt, in one process: what else
the machine does falls on both. Whether the tokens are greedy's own is a meter, and so are the calls of the model and
the bytes of its state. On continuations, the model reads a text's last part as if it had generated it: what a cache
policy or fewer bits lose shows there, in bits per byte.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.decode._contract import Counts, Strategy
from paceline.decode._generate import Stream, generate
from paceline.decode._given import read_given
from paceline.lm.open import Opened, open_lm, strategy
from paceline.lm.quick import quicken
from paceline.race.contestant import Contestant, Event, Job, Outcome, Report
from paceline.race.prompts import Continuations, Prompts, Texts

GREEDY = "greedy"


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
        if not isinstance(event.task, Texts):
            raise PacelineError(f"{self.name} decodes: it races on prompts, not on {event.task.name}.")

    def run(self, job: Job, report: Report) -> Outcome:
        """See `Contestant.run`."""
        task = job.event.task
        assert isinstance(task, Texts)
        base = open_lm(task.model)
        base = replace(base, lm=quicken(base.lm))
        changed, how = strategy(self.name, base)
        texts = task.drawn(job.seed)
        if isinstance(task, Continuations):
            return _on_continuations(task, changed, how, texts, report)
        assert isinstance(task, Prompts)
        return _on_prompts(task, base, changed, how, texts, report)


def _on_prompts(
    task: Prompts, base: Opened, changed: Opened, how: Strategy, texts: Sequence[str], report: Report
) -> Outcome:
    _, greedy = strategy(GREEDY, base)
    prompts = [base.words.encode(text) for text in texts]
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
    }
    return _outcome(items, [stream.counts for stream in mine], changed, began, meters)


def _on_continuations(
    task: Continuations, changed: Opened, how: Strategy, texts: Sequence[str], report: Report
) -> Outcome:
    began, items, counts = time.monotonic(), [], []
    for number, text in enumerate(texts):
        ids = changed.words.encode(text)
        if len(ids) <= task.length:
            raise PacelineError(
                f"A prompt of {len(ids)} tokens has no {task.length} to predict after a beginning: give longer "
                "prompts, or fewer --tokens."
            )
        nats, count = read_given(changed.lm, ids[: -task.length], ids[-task.length :], how)
        items.append(nats.sum().item() / math.log(2) / len(changed.words.decode(ids[-task.length :]).encode()))
        counts.append(count)
        report(number + 1, len(texts), items[-1])
    return _outcome(items, counts, changed, began, {})


def _outcome(
    items: list[float], counts: Sequence[Counts], changed: Opened, began: float, meters: dict[str, float]
) -> Outcome:
    state = max(count.state_bytes for count in counts)
    told = {name: fmean(count.more.get(name, 0.0) for count in counts) for name in counts[0].more}
    bill = Ledger(
        sum(count.read for count in counts), 0.0, time.monotonic() - began,
        sum(count.calls + count.helper_calls for count in counts), _parameters(changed), state,
    )  # fmt: skip
    return Outcome(items, [], bill, {**meters, "state_mib": state / 2**20, **told})


def _timed(opened: Opened, prompt: Sequence[int], how: Strategy, tokens: int, seed: int) -> Stream:
    stream = generate(opened.lm, prompt, how, tokens, stop=opened.ends, seed=seed)
    stream.all()
    return stream


def _rate(stream: Stream) -> float:
    """Tokens a second, the prompt's reading included."""
    return stream.counts.made / stream.counts.seconds


def _parameters(opened: Opened) -> int:
    count = getattr(opened.lm, "parameters", None)
    return sum(p.numel() for p in count()) if callable(count) else 0
