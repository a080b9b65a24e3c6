"""What races by default, on what, and with which budget. Sized by a pilot on other seeds (LOG.md)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from paceline.core.discovery import part
from paceline.core.errors import PacelineError
from paceline.core.spec import check, parse
from paceline.data._contract import Task
from paceline.data._corpus import default_documents, prepare
from paceline.data._reader import read_documents
from paceline.data.text import Text
from paceline.race.contestant import Event

CONTESTANTS = ("attention", "attention(window=16)", "ema", "seqboat")
DEFAULT_OUT = Path("runs/default")
TEXT = {"tokens": 98_304, "parameters": 200_000, "batch": 2}
GENERATED = {"tokens": 307_200, "parameters": 30_000, "batch": 16}
LENGTH = 256


def text_event(
    sources: Sequence[str], field: str | None, folder: Path, tokens: int | None, params: int | None
) -> Event:
    """Next-byte prediction on the user's text, or on the text that comes with Python."""
    task = Text(corpus(sources, field, folder), LENGTH)
    return Event(task, tokens or TEXT["tokens"], params or TEXT["parameters"], TEXT["batch"])


def task_event(text: str, tokens: int | None, params: int | None) -> Event:
    """A generated task by name.

    Raises:
        PacelineError: an unknown task or argument.
    """
    spec = parse(text)
    if spec.name in ("text", "token_text"):
        raise PacelineError(f"For real text give --text FILE, not --task {spec.name}.")
    kind = part("data", spec.name)
    if not issubclass(kind, Task):
        raise PacelineError(f"{spec.name} chooses text to train on, it is no task: `paceline select` uses it.")
    check(spec, kind)
    task = kind(**spec.arguments)
    return Event(task, tokens or GENERATED["tokens"], params or GENERATED["parameters"], GENERATED["batch"])


def corpus(sources: Sequence[str], field: str | None, folder: Path) -> Path:
    """The text prepared under `folder`, once: a race that goes on reads the bytes that it began with."""
    name = hashlib.sha256(repr((list(sources), field)).encode()).hexdigest()[:12] if sources else "default"
    place = folder / "corpus" / name
    if not (place / "corpus.json").is_file():
        begun = any((folder / name).exists() for name in ("race.json", "checkpoints", "training.json"))
        if begun and any(folder.glob("corpus/*/corpus.json")):
            raise PacelineError(f"{folder} holds a run on another text: choose another --out, or delete it.")
        prepare(read_documents(sources, field) if sources else default_documents(), place)
    return place
