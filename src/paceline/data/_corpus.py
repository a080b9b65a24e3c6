"""A training text and a held-out text, split by document and kept on disk as bytes.

`folder/train.u8` and `folder/heldout.u8` hold documents joined by one NUL byte, `folder/corpus.json` their sizes,
digests and the rule of the split. Both texts are mapped, not loaded: a corpus may be larger than memory.
"""

import hashlib
import json
import math
import os
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from paceline.core.errors import PacelineError
from paceline.core.files import sha256, sync_folder, write_json
from paceline.data._reader import Document

MIN_TRAIN = 2_000
"""Bytes of documents below which there is nothing to learn from."""
MIN_HELDOUT = 256
"""Bytes of documents below which a score says nothing."""
SEPARATOR = b"\x00"
_NAMES = 100  # held-out documents that corpus.json names


@dataclass(frozen=True, eq=False)
class Corpus:
    """A prepared text. `train` and `heldout` are read-only maps of uint8, shape (bytes,)."""

    folder: Path
    train: np.ndarray
    heldout: np.ndarray
    names: tuple[str, ...]
    """The first 100 documents that have held-out bytes, in the order of input."""
    digest: str
    """sha256 (hex) over both texts: two corpora with the same digest hold the same bytes."""


class _Piece(NamedTuple):
    """A document in the spool file: `size` bytes from `start`."""

    key: bytes
    start: int
    size: int
    name: str


def prepare(
    documents: Iterable[Document], folder: Path, *, heldout: float = 0.1, seed: int = 0, limit: int | None = None
) -> Corpus:
    """Split `documents` into `folder/train.u8` and `folder/heldout.u8`.

    Of documents with the same bytes the first is kept. A hash of `seed` and content ranks the rest, and held-out takes
    them by rank, never all, until it holds the share `heldout` of all bytes ("by document"): the order of input does
    not change who is held out. Where that would hold out < 1 % or > 50 % of the bytes (few documents, or one giant)
    or leave a side too small, the last `heldout` share of every document is held out instead ("by tail"). Either way
    each side keeps the order of input. Memory: the largest document and about 0.5 kB for each; disk: twice the text.

    Args:
        heldout: share of bytes to hold out, 0 < heldout <= 0.5. Above 0.3, "by document" may hold out 0.2 more.
        limit: take this many bytes of documents at most, in the order of input; the last one is cut.

    Raises:
        PacelineError: less than 2,000 bytes in train or 256 in held-out, a full disk, or `heldout` out of range.
            What `folder` held before is then still there.
    """
    if not 0 < heldout <= 0.5:
        raise PacelineError(f"heldout={heldout} is not a share between 0 and 0.5: give, for example, heldout=0.1.")
    most = math.inf if limit is None else limit
    if most < MIN_TRAIN + MIN_HELDOUT:
        raise PacelineError(f"limit={limit} bytes is too little text: at least {MIN_TRAIN + MIN_HELDOUT:,} are needed.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as spool, tempfile.TemporaryDirectory(dir=folder, prefix=".") as work:
            pieces, duplicates = _spool(documents, spool, str(seed).encode(), most)
            train, held, rule = _split(pieces, heldout)
            report = {
                "rule": rule,
                "documents": len(pieces),
                "duplicates": duplicates,
                "heldout_documents": len(held),
                "heldout_names": [piece.name for piece in held[:_NAMES]],
                "options": {"heldout": heldout, "seed": seed, "limit": limit},
                "train": _write(Path(work, "train.u8"), spool, train),
                "heldout": _write(Path(work, "heldout.u8"), spool, held),
            }
            for path in Path(work).iterdir():
                os.replace(path, folder / path.name)
        sync_folder(folder)
        write_json(folder / "corpus.json", report)  # last: until then the digests there refuse a half-new corpus
    except OSError as error:
        raise PacelineError(f"'{folder}' cannot take the corpus ({error}): check space and permissions.") from error
    return open_corpus(folder)


def open_corpus(folder: Path) -> Corpus:
    """The corpus that `prepare` wrote to `folder`, checked against its sizes and sha256 digests.

    Raises:
        PacelineError: no corpus there, or one of its files is missing, truncated or changed.
    """
    mend = "prepare the corpus again (delete its folder and repeat the command)"
    try:
        report = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        expected = {name: (report[name]["bytes"], report[name]["sha256"]) for name in ("train", "heldout")}
        names = tuple(report["heldout_names"])
        for name, (size, digest) in expected.items():
            path = folder / f"{name}.u8"
            if path.stat().st_size != size:
                raise PacelineError(f"'{path}' has {path.stat().st_size:,} bytes instead of {size:,}: {mend}.")
            if sha256(path) != digest:
                raise PacelineError(f"'{path}' was changed since it was written: {mend}.")
        train, heldout = (np.memmap(folder / f"{name}.u8", np.uint8, "r") for name in expected)
    except OSError as error:
        raise PacelineError(f"'{folder}' holds no readable corpus ({error.strerror}): {mend}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PacelineError(f"'{folder / 'corpus.json'}' is broken: {mend}.") from error
    digests = " ".join(digest for _, digest in expected.values())
    return Corpus(folder, train, heldout, names, hashlib.sha256(digests.encode()).hexdigest())


def default_corpus(folder: Path) -> Path:
    """The default text, prepared once in `folder/default`, which is returned."""
    place = folder / "default"
    if not (place / "corpus.json").is_file():
        prepare(default_documents(), place)
    return place


def default_documents() -> Iterator[Document]:
    """Text that every Python brings: its documentation topics, then the top level of its standard library.

    On Python 3.11: 79 topics of English prose, about 0.47 MB (`pydoc:<topic>`), and 167 modules of Python code,
    about 4.66 MB (`stdlib:<file>`). Files that an installation writes about itself are left out, so that the same
    version of Python gives about the same text everywhere; results should name the version.

    Raises:
        PacelineError: this Python came without its documentation topics.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise PacelineError("This Python came without pydoc_data: give a text of your own.") from error
    for topic, text in sorted(topics.items()):
        yield Document(f"pydoc:{topic}", text.encode())
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if not path.name.startswith(("_sysconfigdata", "sitecustomize", "usercustomize")):
            yield Document(f"stdlib:{path.name}", path.read_bytes())


def _spool(documents: Iterable[Document], spool: BinaryIO, seed: bytes, most: float) -> tuple[list[_Piece], int]:
    """Write up to `most` bytes of documents to `spool`; where each lies, and how many had been seen before."""
    pieces: dict[bytes, _Piece] = {}
    duplicates = start = 0
    for document in documents:
        key = hashlib.blake2b(document.content, digest_size=32, key=seed[:64]).digest()
        if key in pieces:
            duplicates += 1
        elif document.content:
            size = spool.write(document.content[: int(min(len(document.content), most - start))])
            pieces[key] = _Piece(key, start, size, document.name)
            start += size
        if start >= most:
            break
    return list(pieces.values()), duplicates


def _split(pieces: list[_Piece], share: float) -> tuple[list[_Piece], list[_Piece], str]:
    """Pieces to train on, pieces to hold out, and the rule."""
    total, held = sum(piece.size for piece in pieces), 0
    chosen: set[bytes] = set()
    for piece in sorted(pieces)[:-1]:  # by key; all but one at most
        if held >= share * total:
            break
        chosen.add(piece.key)
        held += piece.size
    fair = min(0.01, share) * total <= held <= max(0.5, share + 0.2) * total
    if fair and held >= MIN_HELDOUT and total - held >= MIN_TRAIN:
        return [p for p in pieces if p.key not in chosen], [p for p in pieces if p.key in chosen], "by document"
    train = [piece._replace(size=piece.size - int(piece.size * share)) for piece in pieces]
    tails = [p._replace(start=p.start + t.size, size=p.size - t.size) for p, t in zip(pieces, train, strict=True)]
    tails = [tail for tail in tails if tail.size]
    held = sum(piece.size for piece in tails)
    if total - held < MIN_TRAIN or held < MIN_HELDOUT:
        given = f"{total - held:,} bytes to train on and {held:,} held out"
        raise PacelineError(f"The text gives {given}, but {MIN_TRAIN:,} and {MIN_HELDOUT:,} are needed: give more.")
    return train, tails, "by tail"


def _write(path: Path, spool: BinaryIO, pieces: list[_Piece]) -> dict[str, int | str]:
    """Join `pieces` of `spool` into `path`, safe on disk; its size in bytes and its digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number, piece in enumerate(pieces):
            spool.seek(piece.start)
            for part in (SEPARATOR if number else b"", spool.read(piece.size)):
                digest.update(part)
                file.write(part)
        file.flush()
        os.fsync(file.fileno())
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}
