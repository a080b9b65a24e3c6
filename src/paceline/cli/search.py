"""`paceline search`: the passages of a folder that answer a query, by words, by vectors or by imagined documents."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from paceline.core.discovery import find, part
from paceline.core.errors import PacelineError
from paceline.core.files import cache_folder, sha256
from paceline.core.spec import Spec, check, parse
from paceline.report.words import shorten, visible
from paceline.retrieve._contract import Hits, Retriever
from paceline.retrieve._kept import keep, kept
from paceline.retrieve._passages import Library, Passage, read_folder
from paceline.retrieve.dense import Dense

MODEL = "smollm2"
LONGEST_QUERY = 2**14
NAMED = 3
"""Files left out that are named; of more, how many."""
LINES = 8
"""Lines of a passage that are shown."""


def run(folder: Path, query: str, how: str, model: str | None, k: int, as_json: bool) -> None:
    """Print the `k` best passages."""
    query = query.encode(errors="replace").decode()
    if not query.strip():
        raise PacelineError("The query is empty: give at least one word to search for.")
    if len(query) > LONGEST_QUERY:
        raise PacelineError(f"The query has {len(query):,} characters: give {LONGEST_QUERY:,} at most.")
    if k < 1:
        raise PacelineError(f"-k must be at least 1, not {k}.")
    spec = parse(how)
    if find(spec.name)[0] != "retrieve":
        raise PacelineError(f"--with {how!s:.80} is no way to search: `paceline list retrieve` shows them.")
    if model is not None and spec.name != "hyde":
        raise PacelineError(f"--model is for hyde, where a model writes; {spec.name} has none: leave it out.")
    library = read_folder(folder)
    console = Console(stderr=True, highlight=False)
    _tell(library, console)
    retriever = _retriever(spec, model or MODEL)
    with _watched(retriever, len(library.passages), console):
        _index(retriever, spec, folder, library)
    doing = f"{escape(model or MODEL)} writes documents" if spec.name == "hyde" else "searching"
    with console.status(doing):
        hits = retriever.search([query], k)
    _print(library.passages, hits, spec, query, as_json)


def _retriever(spec: Spec, model: str) -> Retriever:
    """What `--with` names."""
    kind: Any = part("retrieve", spec.name)
    if spec.name != "hyde":
        check(spec, kind)
        made: Retriever = kind(**spec.arguments)
        return made
    check(spec, kind, given=("base", "write"))
    from paceline.lm.open import open_lm
    from paceline.lm.writing import writer

    refused: Retriever = kind(Dense(), lambda *_: [], **spec.arguments)  # before a model is opened
    refused.write = writer(open_lm(model))  # type: ignore[attr-defined]
    return refused


def _index(retriever: Retriever, spec: Spec, folder: Path, library: Library) -> None:
    """The index, from the cache where neither the files nor the way have changed."""
    way = str(Spec("dense")) if spec.name == "hyde" else str(spec)
    encoder = spec.arguments.get("encoder") if spec.name == "dense" else None
    if isinstance(encoder, str) and Path(encoder).is_dir():
        way += "".join(sha256(path) for path in sorted(Path(encoder).rglob("*.safetensors")))
    digest = hashlib.sha256(way.encode())
    for passage in library.passages:
        digest.update(json.dumps([passage.file, passage.first, passage.text]).encode())
    name = hashlib.sha256(f"{os.fsencode(folder.resolve())!r} {way}".encode()).hexdigest()[:24]
    place = cache_folder() / "search" / name
    found = kept(place, digest.hexdigest())
    if found is not None:
        retriever.restore(*found)
        return
    retriever.index([passage.text for passage in library.passages])
    with suppress(OSError):  # a cache that cannot be written costs time alone
        keep(place, digest.hexdigest(), *retriever.stored())


@contextmanager
def _watched(retriever: Retriever, passages: int, console: Console) -> Iterator[None]:
    """A bar while passages are encoded."""
    dense = getattr(retriever, "base", retriever)
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), console=console,
        transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bars:
        if isinstance(dense, Dense):
            bar = bars.add_task("encoding passages", total=passages)
            dense.watch = lambda done: bars.update(bar, completed=done)
        yield


def _tell(library: Library, console: Console) -> None:
    """Name what is not searched."""
    left = library.left_out
    if left:
        named = ", ".join(f"{shorten(visible(file), 80)} ({why})" for file, why in left[:NAMED])
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        console.print(f"Not searched: {named}{more}.", markup=False, soft_wrap=True)


def _print(passages: list[Passage], hits: Hits, spec: Spec, query: str, as_json: bool) -> None:
    found = [
        (passages[number], float(score))
        for number, score in zip(hits.ids[0].tolist(), hits.scores[0].tolist(), strict=True)
        if spec.name != "bm25" or score > 0
    ]
    if as_json:
        print(json.dumps([{**asdict(passage), "score": score} for passage, score in found], indent=1))
        return
    console = Console(highlight=False)
    if not found:
        console.print("No passage holds a word of the query: --with dense searches by meaning.")
    for rank, (passage, score) in enumerate(found, 1):
        place = f"{visible(passage.file)}:{passage.first}-{passage.last}"
        console.print(Text.assemble(f"{rank}. ", (place, "bold"), f"  {score:.3f}"), soft_wrap=True)
        console.print(Padding(Text("\n".join(_excerpt(passage.text, query)), style="dim"), (0, 0, 1, 3)))


def _excerpt(text: str, query: str) -> list[str]:
    """The lines of a passage that are shown: about the one that holds most of the query's words, else the first."""
    lines = [visible(line, keep="\t") for line in text.splitlines() if line.strip()]
    wanted = set(re.findall(r"\w{2,}", query.lower()))
    held = [len(wanted & set(re.findall(r"\w{2,}", line.lower()))) for line in lines]
    start = max(0, min(held.index(max(held)) - 2, len(lines) - LINES))
    dots = "\N{HORIZONTAL ELLIPSIS}"
    after = [dots] if start + LINES < len(lines) else []
    return [*([dots] if start else []), *lines[start : start + LINES], *after]
