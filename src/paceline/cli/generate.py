"""`paceline generate`: continue a text with a saved model."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import typer
from rich.console import Console

from paceline.core.discovery import find
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.core.spec import parse
from paceline.decode._contract import Strategy
from paceline.decode._generate import Stream, generate
from paceline.decode._text import pieces
from paceline.decode.greedy import Greedy
from paceline.decode.sample import Sample
from paceline.lm.open import open_lm, strategy
from paceline.lm.quick import quicken

LONGEST_PROMPT = 2**20


def run(
    model: str,
    prompt: str,
    tokens: int,
    decode: str | None,
    context: str | None,
    temperature: float,
    seed: int,
    stop: Sequence[str],
    counts: bool,
) -> None:
    """Print the prompt and its continuation as it comes; what was shown stays when it is interrupted."""
    if tokens < 1:
        raise PacelineError(f"--tokens must be at least 1, not {tokens}.")
    size = len(prompt.encode("utf-8", errors="surrogateescape"))
    if size > LONGEST_PROMPT:
        raise PacelineError(f"The prompt has {size:,} bytes: give its last {LONGEST_PROMPT:,} at most.")
    plain: Strategy = Greedy() if temperature == 0 else Sample(temperature)
    opened = open_lm(model)
    opened = replace(opened, lm=quicken(opened.lm))
    if context is not None:
        if find(parse(context).name)[0] != "context":
            raise PacelineError(f"--context {context} is no cache policy: `paceline list context` shows them.")
        opened, _ = strategy(context, opened)
    opened, how = (opened, plain) if decode is None else strategy(decode, opened)
    stream = generate(
        opened.lm, opened.words.encode(prompt), how, tokens, stop=opened.ends, seed=derive(seed, "generate")
    )
    sys.stdout.write(prompt)
    try:
        for piece in pieces(stream, opened.words.decode, [text for text in stop if text]):
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        with suppress(BrokenPipeError):
            sys.stdout.write("\n")
            sys.stdout.flush()
    if counts:
        _tell(stream)


def _tell(stream: Stream) -> None:
    """What it took, on standard error."""
    c = stream.counts
    console = Console(stderr=True, highlight=False)
    console.print(
        f"{c.made} tokens in {c.seconds:.2f} s, the first after {c.first:.2f} s, then {c.tokens_per_second:.1f} "
        f"a second; {c.calls} calls, {c.read} tokens read, {c.state_bytes / 2**20:.1f} MiB of state"
    )
    if c.drafted:
        console.print(f"{c.accepted} of {c.drafted} guessed tokens accepted; {c.helper_calls} calls of other models")
    for name, value in c.more.items():
        console.print(f"{name}: {value:.3g}")
