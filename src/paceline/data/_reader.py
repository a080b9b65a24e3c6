"""From what a user gives to `--text` (files, folders, globs) to documents, as raw bytes.

A plain file is one document; a `.jsonl`, `.csv` or `.parquet` file is one document per line or row, from one field.
Documents come one at a time, so that a set larger than memory can be read; the largest document must fit.
"""

import codecs
import csv
import glob
import io
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from paceline.core.errors import PacelineError, suggest

SUFFIXES = (".txt", ".md", ".rst", ".py", ".jsonl", ".csv", ".parquet")
"""What counts as text in a folder or a glob; a file that is named itself may have any other suffix."""
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin")
_PACKED = (b"PK\x03\x04", b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"%PDF-")


@dataclass(frozen=True)
class Document:
    """A text and where it came from: `path`, or `path:n` for line n of a `.jsonl`, row n of a `.csv` or `.parquet`."""

    name: str
    content: bytes


def read_documents(sources: str | Sequence[str], field: str | None = None) -> Iterator[Document]:
    """Documents of every source, in the order of `sources` and sorted by path within a folder or glob.

    A source is a file, a folder (searched recursively) or a glob (`data/**/*.md`). Hidden files, hidden folders and
    symlink loops are skipped, and a file that is reached twice is read once. A UTF-8 byte order mark is stripped,
    and documents of nothing but white space are dropped. `field` is the field of `.jsonl`, `.csv` and `.parquet`
    that holds the text; None takes `text`, else the only field of strings. Plain files ignore it.

    Raises:
        PacelineError: at the call, for a source that names no text; while iterating, for a file that cannot be read
            or parsed, has no such field or may hold a pickle, and for a source with nothing in it.
    """
    sources = [sources] if isinstance(sources, str) else sources  # a string is a sequence of letters otherwise
    if not sources:
        raise PacelineError("No text was given: name a file, a folder or a glob.")
    return _read_files([(source, _find_files(source)) for source in sources], field)


def _find_files(source: str) -> dict[str, str]:
    """The text files that `source` stands for, sorted, as real path -> path, so that links to one file count once."""
    place = os.path.expanduser(source)
    mode = 0
    try:
        mode = os.stat(place).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not any(mark in place for mark in "*?["):
            near = suggest(os.path.basename(place), glob.glob("*", root_dir=os.path.dirname(place) or "."))
            raise PacelineError(f"There is no file or folder '{source}': check the path.{near}") from None
    except (OSError, ValueError) as error:
        _refuse(error, source)
    if stat.S_ISREG(mode):
        return {os.path.realpath(place): place}
    if mode and not stat.S_ISDIR(mode):
        raise PacelineError(f"'{source}' is a pipe, device or socket: write what it gives to a file first.")
    found = map(Path, _walk(place) if mode else _expand(place))
    texts = sorted(path for path in found if path.suffix.lower() in SUFFIXES and os.path.isfile(path))
    if not texts:
        raise PacelineError(
            f"'{source}' holds no text file ({' '.join(SUFFIXES)}): name a file of another kind itself."
        )
    return {os.path.realpath(path): str(path) for path in texts}


def _expand(pattern: str) -> Iterable[str]:
    """Files of a glob. What follows `**` goes through `_walk`: Python's glob runs in circles on symlink loops."""
    head, deep, tail = pattern.rpartition("**")
    if not deep:
        return glob.iglob(pattern)
    roots = filter(os.path.isdir, glob.iglob(head or ".", recursive=True))
    return (p for root in roots for p in _walk(root) if Path(p).relative_to(root).match(tail.strip("/\\") or "*"))


def _walk(folder: str) -> Iterator[str]:
    """Every file under `folder` that is not hidden; a folder that links lead to twice is entered once."""
    entered = set()
    for here, folders, files in os.walk(folder, onerror=lambda error: _refuse(error, error.filename), followlinks=True):
        real = os.path.realpath(here)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if real not in entered else []
        yield from (os.path.join(here, name) for name in files if not name.startswith(".") and real not in entered)
        entered.add(real)


def _read_files(found: list[tuple[str, dict[str, str]]], field: str | None) -> Iterator[Document]:
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    fruitful: dict[str, bool] = {}  # by real path: whether the file held any document
    for source, files in found:
        for real, path in files.items():
            if real in fruitful:
                continue
            fruitful[real] = False
            try:
                with open(path, "rb") as file:
                    _check_head(file, path)
                    read = readers.get(os.path.splitext(path)[1].lower())
                    for document in read(file, path, field) if read else [Document(path, file.read())]:
                        if document.content and not document.content.isspace():
                            fruitful[real] = True
                            yield document
            except OSError as error:
                _refuse(error, path)
        if not any(fruitful[real] for real in files):
            raise PacelineError(f"'{source}' is empty: give text with at least one document that is not blank.")


def _check_head(file: BinaryIO, path: str) -> None:
    """Leave `file` behind its byte order mark, once it is known to be neither pickle nor archive."""
    head = file.read(1 << 16)
    if path.lower().endswith(_PICKLES) or (head[:1] == b"\x80" and b"\2" <= head[1:2] <= b"\5"):
        raise PacelineError(f"'{path}' is a pickle, which can run code when loaded: save the text as .txt.")
    if head.startswith(_PACKED):
        raise PacelineError(f"'{path}' is a packed file (zip, gzip, xz, zstd or PDF): unpack it to plain text.")
    if b"\0" in head and path.lower().endswith(".csv"):
        raise PacelineError(f"'{path}' is not CSV, it holds NUL bytes: export it again as UTF-8 text.")
    file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)


def _read_jsonl(file: BinaryIO, path: str, field: str | None) -> Iterator[Document]:
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        try:
            if not isinstance(record := json.loads(line.decode()), dict):
                raise ValueError("no braces around it")
        except (ValueError, RecursionError) as error:
            why = str(error).partition(": line 1")[0]  # the parser sees only this line
            raise PacelineError(f"Line {number} of '{path}' is not a JSON object ({why}): mend or drop it.") from error
        text = [key for key, value in record.items() if isinstance(value, str)]
        field = _choose(f"{path}:{number}", list(record), text, field)  # the first record decides for the whole file
        if not isinstance(value := record[field], str | None):
            raise PacelineError(f"Field '{field}' in line {number} of '{path}' is not text: take another by --field.")
        # surrogatepass: JSON may hold half an emoji
        yield Document(f"{path}:{number}", (value or "").encode("utf-8", "surrogatepass"))


def _read_csv(file: BinaryIO, path: str, field: str | None) -> Iterator[Document]:
    # surrogateescape carries bytes that are not UTF-8 through csv and back unharmed
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    rows = csv.reader(text, strict=True)
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a chapter; a C long on Windows has 32 bits
    try:
        header = next(rows, [])
        named = [name for name in header if name]  # pandas leaves the name of its index column blank
        column = header.index(_choose(path, named, named, field)) if header else 0
        for number, row in enumerate(filter(None, rows), 1):  # csv gives [] for a blank line
            if len(row) != len(header):
                raise csv.Error(f"{len(row)} columns where the header has {len(header)}")
            yield Document(f"{path}:{number}", row[column].encode("utf-8", "surrogateescape"))
    except csv.Error as error:
        raise PacelineError(f"Line {rows.line_num} of '{path}' is not CSV ({error}): mend its quotes.") from error
    finally:
        text.detach()  # the file is the caller's to close


def _read_parquet(file: BinaryIO, path: str, field: str | None) -> Iterator[Document]:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError as error:
        raise PacelineError(f"Reading '{path}' needs pyarrow: install it with `pip install pyarrow`.") from error
    try:
        table = pq.ParquetFile(file)
        schema = {c.name: c.type.value_type if pa.types.is_dictionary(c.type) else c.type for c in table.schema_arrow}
        text = [name for name, kind in schema.items() if kind in (pa.string(), pa.large_string(), pa.string_view())]
        field = _choose(path, list(schema), text, field)
        groups = (table.read_row_group(i, columns=[field]) for i in range(table.num_row_groups))  # iter_batches hoards
        cells = itertools.chain.from_iterable(group.column(0).cast(pa.large_binary()) for group in groups)
        for number, cell in enumerate(cells, 1):
            yield Document(f"{path}:{number}", cell.as_py() or b"")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: a column's name is not UTF-8
        why = str(error).partition("\n")[0].rstrip(".")
        raise PacelineError(f"'{path}' is not Parquet with text in it ({why}): write the file again.") from error


def _choose(where: str, fields: list[str], text: list[str], field: str | None) -> str:
    """The field that holds the text: the one asked for, else `text`, else the only one of strings."""
    chosen = field or ("text" if "text" in fields else text[0] if len(text) == 1 else None)
    if chosen in fields:
        return chosen
    names = ", ".join(fields[:20]) + (", ..." if len(fields) > 20 else "")
    what = f"no field '{field}'" if field else f"{len(text) or 'no'} text fields"
    near = suggest(field or "", fields)
    raise PacelineError(f"'{where}' has {what}: choose by --field among {names}, or leave the file out.{near}")


def _refuse(error: OSError | ValueError, path: str) -> NoReturn:
    why = getattr(error, "strerror", None) or error
    raise PacelineError(f"'{path!s:.300}' cannot be read ({why}): check path and permissions.") from error
