"""Text of several domains as bytes, each sequence from one of them: what a model can win by telling them apart.

    prose     Python's documentation topics                       table    the Unicode database, as lines of fields
    code      modules of its standard library                     tree     syntax trees of other modules

All of it comes with Python, so a result holds for its version. The domains are of about the same size, each is held out
by document, and a sequence is from each with the same probability. Item i of the measure is of domain i modulo 4.
"""

import ast
import platform
import sysconfig
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.files import cache_folder
from paceline.data._contract import Batch, Task
from paceline.data._corpus import default_documents, prepare
from paceline.data._reader import Document
from paceline.data.text import Text

PAPERS = (
    Source(
        title="Demons in the Detail: On Implementing Load Balancing Loss for Training Specialized Mixture-of-Expert "
        "Models",
        arxiv="2501.11873",
        year=2025,
        says="measures how experts specialise in the domains of their text",
    ),
)
SIZE = 450_000
"""Bytes of a domain at most: those of the smallest."""


class Domains(Task):
    """Next-byte prediction on four domains, one to a sequence.

    Args:
        folder: where the domains are prepared, once. Default: Paceline's cache.
        length: bytes that the model reads, t.

    Raises:
        PacelineError: as `Text`; or this Python came without its documentation topics.
    """

    name = "domains"
    title = "Text of four domains"
    metric = "bits per byte"
    better = "lower"
    items = 128
    vocab_size = 256
    floor = 8.0
    ceiling = None

    def __init__(self, folder: str | Path | None = None, length: int = 128) -> None:
        place = Path(folder) if folder else cache_folder() / f"domains-{platform.python_version()}"
        self.length = length
        self.texts = {name: Text(_prepared(name, place), length) for name in DOMAINS}

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """A domain for each sequence, and a window anywhere in its training bytes."""
        drawn = torch.randint(len(self.texts), (size,), generator=generator)
        ids, targets = (torch.empty(size, self.length, dtype=torch.long) for _ in range(2))
        for number, text in enumerate(self.texts.values()):
            if here := int((drawn == number).sum()):
                part = text.sample(here, generator)
                ids[drawn == number], targets[drawn == number] = part.ids, part.targets
        return Batch(ids, targets)

    def evaluation(self) -> Batch:
        """Windows spread evenly over the held-out bytes of each domain, the domains in turns."""
        parts = []
        for text in self.texts.values():
            text.items = -(-self.items // len(self.texts))
            parts.append(text.evaluation())
        ids, targets = (
            torch.stack([getattr(part, side) for part in parts], dim=1).flatten(0, 1) for side in ("ids", "targets")
        )
        return Batch(ids[: self.items], targets[: self.items])

    def domain_of(self, item: int) -> str:
        """The domain of an item of the measure."""
        return list(self.texts)[item % len(self.texts)]

    def describe(self) -> str:
        """See `Task.describe`."""
        digests = " ".join(text.corpus.digest[:8] for text in self.texts.values())
        return (
            f"Predict the next byte of held-out text, in windows of {self.length} bytes, each of one of "
            f"{len(self.texts)} domains: {', '.join(self.texts)} (digests {digests})."
        )

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """See `Text.show`."""
        return next(iter(self.texts.values())).show(ids)


def _prose() -> Iterator[Document]:
    return (document for document in default_documents() if document.name.startswith("pydoc:"))


def _modules(remainder: int) -> Iterator[Path]:
    """Every second module of the standard library: those of one domain are not in the other."""
    paths = sorted(path for path in Path(sysconfig.get_path("stdlib")).glob("*.py") if not path.name.startswith("_"))
    return (path for number, path in enumerate(paths) if number % 2 == remainder)


def _code() -> Iterator[Document]:
    return (Document(f"stdlib:{path.name}", path.read_bytes()) for path in _modules(0))


def _trees() -> Iterator[Document]:
    for path in _modules(1):
        yield Document(f"tree:{path.name}", ast.dump(ast.parse(path.read_bytes())).encode()[:12_000])


def _tables() -> Iterator[Document]:
    """A document for each block of 256 characters."""
    for block in range(0, 0x20000, 256):
        rows = [
            f"{code:05x};{name};{unicodedata.category(chr(code))};{unicodedata.bidirectional(chr(code))};"
            f"{unicodedata.combining(chr(code))};{unicodedata.decomposition(chr(code))}\n"
            for code in range(block, block + 256)
            if (name := unicodedata.name(chr(code), "")) and not name.startswith(("CJK", "HANGUL SYLLABLE"))
        ]
        if rows:
            yield Document(f"unicode:{block:05x}", "".join(rows).encode())


DOMAINS: dict[str, Callable[[], Iterator[Document]]] = {
    "prose": _prose,
    "code": _code,
    "table": _tables,
    "tree": _trees,
}


def _prepared(name: str, folder: Path) -> Path:
    """The corpus of a domain, prepared where it is not there."""
    if not (folder / name / "corpus.json").is_file():
        prepare(DOMAINS[name](), folder / name, limit=SIZE)
    return folder / name
