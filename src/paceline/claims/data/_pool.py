"""A pool of text of four domains, little of it like the target, and training on a part of it."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from safetensors.torch import load, save
from torch import Tensor

from paceline.core.files import write_atomic
from paceline.core.seeds import derive
from paceline.data._contract import Batch, Task
from paceline.data.domains import Domains
from paceline.data.text import Text

LENGTH = 128
"""Bytes that are read at once; a document has one more."""


class Target(Text):
    """Held-out text of the target domain, with the pool to select from.

    Args:
        folder: where the domains were prepared.
        target: one of them.
        documents: of the pool.
        share: of them that are of the target domain.
        sample: documents of the target domain that are not in the pool, to tune on.
        items: windows of held-out text.
    """

    def __init__(self, folder: Path, target: str, documents: int, share: float, sample: int, items: int) -> None:
        super().__init__(folder / target, LENGTH)
        self.place, self.target, self.documents, self.share = folder, target, documents, share
        self.tuned_on, self.items = sample, items
        self.name, self.title = target, f"Target: {target}"  # type: ignore[misc]

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"{super().describe()} The pool: {self.documents:,} documents of {LENGTH + 1} bytes, "
            f"{self.share:.0%} of them {self.target}; the target sample: {self.tuned_on:,} others."
        )

    def drawn(self, seed: int) -> tuple[Int[Tensor, "n t"], Int[Tensor, " n"], Int[Tensor, "m t"]]:
        """The pool, the domain of each of its documents (0 for the target), and the target sample."""
        draws = torch.Generator().manual_seed(derive(seed, "pool"))
        others = [text for name, text in Domains(self.place, LENGTH).texts.items() if name != self.target]
        near = round(self.share * self.documents)
        own = _pieces(self.corpus.train, near + self.tuned_on, draws)
        counts = [len(part) for part in torch.arange(self.documents - near).tensor_split(len(others))]
        rows = [own[:near], *(_pieces(text.corpus.train, n, draws) for text, n in zip(others, counts, strict=True))]
        domain = torch.cat([torch.full((len(part),), number) for number, part in enumerate(rows)])
        order = torch.randperm(self.documents, generator=draws)
        return torch.cat(rows)[order], domain[order], own[near:]


class Chosen(Task):
    """Training on given documents of one length, drawn as they come.

    Args:
        documents: each `LENGTH` + 1 bytes.
    """

    name, title, metric, better = "chosen", "Chosen documents", "bits per byte", "lower"
    vocab_size, length, floor, ceiling = 256, LENGTH, 8.0, None

    def __init__(self, documents: Int[Tensor, "n t"]) -> None:
        self.documents = documents

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """See `Task.sample`."""
        rows = self.documents[torch.randint(len(self.documents), (size,), generator=generator)]
        return Batch(rows[:, :-1], rows[:, 1:])

    def evaluation(self) -> Batch:
        """Never asked: models are measured on the target."""
        raise NotImplementedError

    def describe(self) -> str:
        """See `Task.describe`."""
        return f"Predict the next byte of {len(self.documents):,} chosen documents."

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Never asked: there are no gates here."""
        raise NotImplementedError


def _pieces(text: np.ndarray, count: int, draws: torch.Generator) -> Int[Tensor, "n t"]:
    """Documents of a text that do not overlap, drawn without replacement."""
    size = LENGTH + 1
    whole = torch.from_numpy(text[: len(text) // size * size].astype(np.int64)).view(-1, size)
    return whole[torch.randperm(len(whole), generator=draws)[:count]]


def kept_once(folder: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `make` gives, from `folder` where an earlier cell, or one beside this, has made them.

    Args:
        folder: its own, named after all that decides.
        make: the same whoever calls it.
    """
    place = folder / "tensors.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed: another that wants them waits
        if not place.exists():  # it appears whole
            write_atomic(place, save(make()))
    return load(place.read_bytes())
