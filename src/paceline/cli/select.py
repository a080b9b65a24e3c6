"""`paceline select`: of a folder's documents, those that are most worth training on for the sake of a target."""

import copy
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from paceline.core.discovery import find, part
from paceline.core.errors import PacelineError
from paceline.core.files import write_atomic
from paceline.core.seeds import derive
from paceline.core.spec import check, parse
from paceline.data._corpus import prepare
from paceline.data._reader import SUFFIXES, Document, read_documents
from paceline.data._selection import Losses, Selector, losses_of
from paceline.data.text import Text
from paceline.lm.config import build, fit
from paceline.lm.decoder import Decoder
from paceline.lm.evaluate import evaluate
from paceline.lm.layers import LayeredDecoder
from paceline.lm.open import Bytes, Opened, open_lm
from paceline.lm.train import Recipe, train
from paceline.report.words import shorten, visible

LEAST = 4_000
"""Bytes of a target sample below which a model learns nothing from it."""
FEWEST = 10
"""Documents of a pool below which there is nothing to select."""
PIECE = 512
"""Bytes of the pieces that the target is cut into, of which some are held out."""
NAMED, AT_ONCE = 3, 4
"""Documents that are named; windows of a large model that are read side by side."""
LENGTH, LAYERS, PARAMETERS, BATCH = 128, 2, 60_000, 4
TOKENS, EPOCHS, MOST = 600_000, 3, 200_000
"""Bytes that the prior learns from; how often the other reads the target, and how many bytes at most."""
RATE, TUNING_RATE = 5e-3, 2e-3


@dataclass(frozen=True)
class Pool:
    """What is selected from."""

    documents: list[Document]
    skipped: dict[str, int]
    """How many were left out, by why."""


def run(
    folder: str,
    target: Sequence[str],
    keep: float,
    out: Path,
    prior: str | None = None,
    conditional: str | None = None,
    field: str | None = None,
    seed: int = 0,
    by: str = "color_filter",
) -> None:
    """Write the selected documents with their scores, and say how many, how large and which.

    Args:
        folder: the pool: a folder, file or glob of text.
        target: files, folders or globs of text like that which the model is for.
        keep: share of the documents to keep, by count.
        out: file of lines of JSON, in the pool's order: `text`, `source` and `score`, in nats per token.
        prior: a model of text like the pool. Default: a small one of bytes is trained here.
        conditional: the same model, tuned on the target. Default: it is tuned here, where it can be.
        field: see `read_documents`.
        seed: of what is trained.
        by: the selector, such as `color_filter` or, to compare with, `random_selection(seed=1)`.

    Raises:
        PacelineError: no text, too little of it, a share out of range, a place that cannot be written, or models that
            do not go together.
    """
    if not 0 < keep < 1:
        raise PacelineError(f"--keep {keep} is no share of the documents: give one between 0 and 1, such as 0.1.")
    _check_out(out, folder)
    console, selector = Console(stderr=True, highlight=False), _selector(by)
    if not (target or not selector.reads_losses):
        raise PacelineError("Nothing says what the text is for: give a sample of the target by --target.")
    wanted = sieve(read_documents(target, field)) if selector.reads_losses else Pool([], {})
    size = sum(len(document.content) for document in wanted.documents)
    if size < LEAST and selector.reads_losses:
        raise PacelineError(f"The target has {size:,} bytes of text, too few to select by: give at least {LEAST:,}.")
    pool = sieve(read_documents(folder, field), _blank(folder))
    if len(pool.documents) < FEWEST:
        count = len(pool.documents)
        raise PacelineError(
            f"'{folder!s:.200}' holds {count} documents of text, at least {FEWEST} are needed: add some."
        )
    if selector.reads_losses:
        losses = _losses(pool.documents, wanted.documents, prior, conditional, seed, console)
    else:
        losses = Losses(*torch.zeros(2, len(pool.documents)))
    scores = selector.score(losses).tolist()
    kept = selector.select(losses, keep).tolist()
    lines = [
        json.dumps({"text": pool.documents[i].content.decode(), "source": pool.documents[i].name, "score": scores[i]})
        for i in kept
    ]
    try:
        write_atomic(out, "\n".join(lines) + "\n")
    except OSError as error:
        raise PacelineError(
            f"--out {out} cannot be written ({error.strerror}): check space and permissions."
        ) from error
    _tell(pool, kept, scores, out)


def _selector(by: str) -> Selector:
    """What `--by` names."""
    spec = parse(by)
    kind: Any = part("data", find(spec.name, "data")[1])
    if not issubclass(kind, Selector):
        raise PacelineError(f"--by {by!s:.80} selects nothing, it is a task: `paceline race ... --task` uses it.")
    check(spec, kind)
    made: Selector = kind(**spec.arguments)
    return made


def sieve(documents: Iterable[Document], blank: int = 0) -> Pool:
    """The documents that are text of two bytes or more; what is not is counted."""
    found: list[Document] = []
    skipped = {"empty": blank, "binary": 0, "too short": 0}
    for document in documents:
        try:
            document.content.decode()
        except UnicodeDecodeError:
            skipped["binary"] += 1
            continue
        if b"\0" in document.content:
            skipped["binary"] += 1
        elif len(document.content) < 2:
            skipped["too short"] += 1
        else:
            found.append(document)
    return Pool(found, {why: count for why, count in skipped.items() if count})


def _losses(
    pool: list[Document],
    target: list[Document],
    prior: str | None,
    conditional: str | None,
    seed: int,
    console: Console,
) -> Losses:
    """Of the pool's documents, under models that are given or trained."""
    if conditional is not None and prior is None:
        raise PacelineError(f"--conditional {conditional} needs the model that it was tuned from: give it by --prior.")
    first = None if prior is None else open_lm(prior)
    if first is None or conditional is None:
        both = _trained(pool, target, first, seed, console)
    else:
        both = [first, open_lm(conditional)]
    sides: list[Float[Tensor, " n"]] = []
    read: list[list[Int[Tensor, " _"]]] = []
    for opened in both:
        ids = [torch.tensor(opened.words.encode(document.content.decode())) for document in pool]
        if read and any(not torch.equal(a, b) for a, b in zip(read[0], ids, strict=True)):
            raise PacelineError(
                f"{prior} and {conditional} read different tokens: give a model and its own tuned form."
            )
        short = next((document.name for document, each in zip(pool, ids, strict=True) if len(each) < 2), None)
        if short:
            raise PacelineError(f"'{short:.200}' is one token to {opened.name}: leave it out, its loss cannot be told.")
        read.append(ids)
        with console.status(f"reading {len(pool):,} documents with {escape(opened.name)}"):
            small = isinstance(opened.words, Bytes)
            sides.append(losses_of(opened.lm, ids, LENGTH if small else 256, 32 if small else AT_ONCE))
    return Losses(*sides)


def _trained(
    pool: list[Document], target: list[Document], prior: Opened | None, seed: int, console: Console
) -> list[Opened]:
    """A byte model of the pool, where none is given, and a copy of it tuned on nine tenths of the target.

    What tuning gains on the last tenth is told: where it gains nothing, no selection by it could mean anything.
    """
    model = None if prior is None else _tunable(prior)
    with tempfile.TemporaryDirectory() as work, console.status("training two small models") as status:
        wanted = Text(prepare(_cut(target), Path(work, "target")).folder, LENGTH)

        def show(done: int, of: int, loss: float) -> None:
            status.update(f"training two small models: step {done:,} of {of:,}, {loss:.3f} bits per byte")

        if model is None:
            text = Text(prepare(pool, Path(work, "pool")).folder, LENGTH)
            torch.manual_seed(derive(seed, "auxiliary"))
            model = build(fit(["attention"] * LAYERS, 256, PARAMETERS))
            train(model, text, Recipe(TOKENS, BATCH, lr=RATE), derive(seed, "pool"), progress=show)
        tuned = copy.deepcopy(model).train()
        tokens = max(min(EPOCHS * len(wanted.corpus.train), MOST), BATCH * LENGTH)
        train(tuned, wanted, Recipe(tokens, BATCH, lr=TUNING_RATE), derive(seed, "target"), progress=show)
        before, after = (evaluate(each.eval(), wanted).score for each in (model, tuned))
    if after >= before:
        raise PacelineError(
            f"Tuning on the target teaches nothing ({before:.3f} bits per byte of its held-out text before, "
            f"{after:.3f} after): give a larger target sample."
        )
    console.print(f"Held-out target text: {before:.3f} bits per byte under the prior, {after:.3f} once tuned.")
    return [Opened("the prior", model, Bytes()), Opened("the conditional model", tuned, Bytes())]


def _cut(documents: list[Document]) -> Iterator[Document]:
    """Pieces of documents, so that a tenth of them is like the rest even where there is one document alone."""
    for document in documents:
        for start in range(0, len(document.content), PIECE):
            yield Document(f"{document.name}:{start}", document.content[start : start + PIECE])


def _tunable(prior: Opened) -> Decoder:
    """The decoder of bytes behind a model that was opened."""
    lm = prior.lm.decoder if isinstance(prior.lm, LayeredDecoder) else prior.lm
    if isinstance(lm, Decoder) and isinstance(prior.words, Bytes):
        return lm
    mend = "give its tuned form by --conditional"
    raise PacelineError(f"{prior.name} is no byte model of `paceline train`, so it is not tuned here: {mend}.")


def _check_out(out: Path, folder: str) -> None:
    if out.is_dir():
        raise PacelineError(f"--out {out} is a folder: give a file, such as {out / 'selected.jsonl'}.")
    if out.suffix.lower() != ".jsonl":
        raise PacelineError(f"--out {out} is written as lines of JSON: let its name end in .jsonl.")
    if os.path.isdir(folder) and out.resolve().is_relative_to(Path(folder).resolve()):
        raise PacelineError(f"--out {out} lies in the folder that is selected from: put it elsewhere.")


def _blank(folder: str) -> int:
    """Text files of a folder that hold nothing: the reader passes them over."""
    if not os.path.isdir(folder):
        return 0
    found = 0
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(here, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and path.is_file():
                found += path.stat().st_size < 2**16 and not path.read_bytes().strip()
    return found


def _tell(pool: Pool, kept: list[int], scores: list[float], out: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    sizes = [len(document.content) for document in pool.documents]
    share = sum(sizes[i] for i in kept) / sum(sizes)
    best = sorted(kept, key=lambda i: -scores[i])[:NAMED]
    named = ", ".join(f"{shorten(visible(pool.documents[i].name), 80)} ({scores[i]:+.3f})" for i in best)
    if pool.skipped:
        said = ", ".join(f"{count:,} {why}" for why, count in pool.skipped.items())
        console.print(f"Skipped: {said}.", markup=False)
    console.print(
        f"Kept {len(kept):,} of {len(sizes):,} documents, {sum(sizes[i] for i in kept):,} bytes ({share:.1%}), "
        f"with scores from {min(scores[i] for i in kept):+.3f}; the best: {named}.",
        markup=False,
    )  # fmt: skip
    if not any(scores[i] > 0 for i in kept):
        console.print("No document became likelier by tuning on the target: the pool may hold nothing like it.")
    console.print(f"Train on them: paceline train seqboat --text {out} --out DIR", markup=False)
