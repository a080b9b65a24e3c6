"""A folder's text files, cut into passages that overlap: what a search ranks."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paceline.core.errors import PacelineError

LARGEST = 2**26
"""Bytes of a file beyond which it is left out."""


@dataclass(frozen=True)
class Passage:
    """A part of a file."""

    file: str
    """Its path inside the folder."""
    first: int
    """Line that it begins in, from 1."""
    last: int
    text: str


@dataclass(frozen=True)
class Library:
    """What a folder holds."""

    passages: list[Passage]
    left_out: list[tuple[str, str]]
    """Files that are not searched, and why."""


def read_folder(folder: Path, words: int = 120, overlap: int = 30) -> Library:
    """The passages of every text file in a folder, sorted by path; hidden files and folders are passed over.

    Raises:
        PacelineError: there is no such folder, or no text in it.
    """
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise PacelineError(f"'{folder!s:.300}' {what}: give a folder of text files to search in.")
    passages: list[Passage] = []
    left_out: list[tuple[str, str]] = []
    for path in _files(folder):
        name = str(path.relative_to(folder))
        text, why = _read(path)
        if why:
            left_out.append((name, why))
        passages += [Passage(name, *piece) for piece in split(text, words, overlap)]
    if not passages:
        reason = f" ({left_out[0][0]!s:.200} is {left_out[0][1]})" if left_out else ""
        raise PacelineError(f"'{folder!s:.300}' holds no text to search in{reason}: give a folder of text files.")
    return Library(passages, left_out)


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))


def _read(path: Path) -> tuple[str, str]:
    """A file's text, or why it has none."""
    try:
        if not path.is_file():
            return "", "no plain file"
        if path.stat().st_size > LARGEST:
            return "", f"larger than {LARGEST >> 20} MiB"
        content = path.read_bytes()
    except OSError as error:
        return "", f"not readable ({error.strerror})"
    if b"\0" in content:
        return "", "binary"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "", "not UTF-8"
    return (text, "") if text.strip() else ("", "empty")


def split(text: str, words: int, overlap: int) -> list[tuple[int, int, str]]:
    """(first line, last line, text) of passages of at most `words` words, each begins with the end of the one before.

    Passages are whole lines, the last of them at most `overlap` words in common; a line that is too long is cut.
    """
    if not 0 <= overlap < words:
        raise PacelineError(f"Passages of {words} words cannot overlap by {overlap}: give a smaller overlap.")
    units: list[tuple[int, str, int]] = []  # line, text, words
    for number, line in enumerate(text.splitlines(), 1):
        held = line.split()
        if len(held) <= words:
            units.append((number, line, len(held)))
            continue
        step = words - overlap
        starts = range(0, len(held) - overlap, step)
        units += [(number, " ".join(held[s : s + words]), len(held[s : s + words])) for s in starts]
    found, start = [], 0
    while start < len(units):
        end, total = start, 0
        while end < len(units) and (end == start or total + units[end][2] <= words):
            total += units[end][2]
            end += 1
        inside = [unit for unit in units[start:end] if unit[2]]
        if inside:
            body = "\n".join(unit[1] for unit in units[start:end]).strip("\n")
            found.append((inside[0][0], inside[-1][0], body))
        if end == len(units):
            break
        back, shared = end, 0
        while back - 1 > start and shared + units[back - 1][2] <= overlap:
            back -= 1
            shared += units[back][2]
        start = back
    return found
