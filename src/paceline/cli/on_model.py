"""`paceline race ... --on-model MODEL`: ways to decode one given model, side by side; with --text, to adapt it."""

import hashlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from paceline.cli.numbers import check_numbers
from paceline.cli.race import run_and_show
from paceline.context._contract import Policy
from paceline.context._reader import Reader
from paceline.core.errors import PacelineError
from paceline.data._corpus import default_documents
from paceline.lm.open import Opened, open_lm, strategy
from paceline.race.contestant import Event
from paceline.race.decoding import Decoding
from paceline.race.pool import Limits
from paceline.race.prompts import Continuations, Prompts, read_prompts

CONTESTANTS = ("greedy", "lookup", "int8")
TOKENS, ITEMS, DEFAULT_PROMPTS = 48, 2, 32
SHORT, LONG = 600, 3_000
"""Bytes of a prompt, and of one for cache policies: about 200 and 1,000 tokens."""


def run(
    contestants: Sequence[str],
    model: str | None,
    prompts: Path | None,
    tokens: int | None,
    seeds: int | None,
    out: Path | None,
    confirm: bool,
    others: Sequence[str],
    as_json: bool,
    text: Sequence[str] = (),
    field: str | None = None,
    keep: Path | None = None,
) -> None:
    """Race, one cell at a time with all cores, then print the tables, where the page is, and the winner's command."""
    if model is None:
        raise PacelineError("--prompts needs --on-model: the folder of a model, or smollm2.")
    if text:
        if prompts is not None:
            raise PacelineError("Give --text to adapt the model, or --prompts to decode with it, not both.")
        if others:
            raise PacelineError(f"{others[0]} does not go with --on-model, whose sizes are given: leave it out.")
        from paceline.cli.adapting import run as adapt

        adapt(contestants, model, text, field, tokens, seeds, out, keep, confirm, as_json)
        return
    given = [*others, *(name for name, value in (("--keep", keep), ("--field", field)) if value)]
    if given:
        raise PacelineError(f"{given[0]} does not go with --on-model, where nothing is trained: leave it out.")
    check_numbers(tokens=tokens, seeds=seeds)
    names = list(contestants) or list(CONTESTANTS)
    opened = open_lm(model)
    policies, aware = False, []
    for name in names:
        changed, how = strategy(name, opened)
        if changed.words is not opened.words:
            raise PacelineError(f"{name} counts in bytes, where the others count in tokens: use it in generate.")
        how.prepare(changed.lm)
        policy = _policy(changed)
        policies |= policy is not _policy(opened)
        aware += [] if policy is None or policy.blind else [name]
    texts = default_prompts(LONG if policies else SHORT) if prompts is None else read_prompts(prompts)
    length = tokens or TOKENS
    events = [Event(Prompts(texts, model, length, ITEMS), 0, 0, 1)]
    shortest = min(len(opened.words.encode(text)) for text in texts)
    if policies and shortest <= length:
        raise PacelineError(
            f"The shortest prompt has {shortest} tokens, and a race of cache policies asks the last {length} of each: "
            "give longer prompts, or fewer --tokens."
        )
    if policies:  # what they lose comes before how fast they are
        events.insert(0, Event(Continuations(texts, model, length, ITEMS, aware), 0, 0, 1))
    if out is None:
        everything = repr((names, model, tuple(texts), length, seeds))
        out = Path("runs") / f"decode-{hashlib.sha256(everything.encode()).hexdigest()[:8]}"
    run_and_show(
        [Decoding(name) for name in names], events, out, as_json,
        lambda winner: f"paceline generate {shlex.quote(model)} --decode {shlex.quote(winner)} --prompt 'The '",
        seeds=seeds, confirm=confirm, limits=Limits(workers=1, threads=os.cpu_count() or 1),
    )  # fmt: skip


def _policy(opened: Opened) -> Policy | Reader | None:
    """How the model remembers, where that can be exchanged."""
    found: Policy | Reader | None = getattr(opened.lm, "reader", None) or getattr(opened.lm, "policy", None)
    return found


def default_prompts(size: int) -> list[str]:
    """Beginnings, of so many bytes, of documentation topics and modules that come with Python, as many of each."""
    documents = [document for document in default_documents() if len(document.content) > 2 * size]
    step = max(1, len(documents) // DEFAULT_PROMPTS)
    return [d.content[:size].decode(errors="ignore") for d in documents[::step]]
