"""Many small adapters of one model, trained and asked side by side: row i of a batch goes through adapter i.

    y_i = W x_i + (alpha / r) B_i A_i x_i            W (o, i) shared and frozen, A_i (r, i), B_i (o, r) of adapter i

LoRA as `adapt/lora.py` has it, on the same maps. No sum mixes rows, and Adam moves every number by itself, so training
n adapters in one batch is training each alone; and a text's cost under all of them is one pass of n rows. The base
model is a row whose adapter is zero. Adapters are kept one a file, named after all that decides what is in them, so
training goes on where it was interrupted and a text that was trained on before costs nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from paceline.adapt._chosen import read_tensors
from paceline.adapt.lora import OUTSIDE, LoRA, linear_maps
from paceline.core.errors import PacelineError
from paceline.core.files import write_atomic
from paceline.core.seeds import derive
from paceline.lm.adapted import ready
from paceline.lm.decoder import Decoder
from paceline.lm.open import Words, open_lm
from paceline.lm.padded import lots
from paceline.prompt._contract import Progress

START = "\n"
"""Before every text, as in a prompt, so that its first token is predicted too."""
ROOM = 1024
"""Tokens, padding included, that are in a batch."""
IGNORE = -100


@dataclass(frozen=True)
class Scorer:
    """A small model that adapters are trained for; it is left as it is."""

    name: str
    model: Decoder
    """Gives logits."""
    inner: nn.Module
    """Holds the maps."""
    words: Words
    prefix: str = ""
    """Before the maps' names, in the Hugging Face model that holds them."""

    def ids(self, text: str, longest: int) -> list[int]:
        """A text's first tokens, after `START`.

        Raises:
            PacelineError: there are not two.
        """
        ids = self.words.encode(START + text)[: longest + 1]
        if len(ids) < 2:
            raise PacelineError(f"The text {text[:40]!r} has no token that could be predicted: give more of it.")
        return ids

    @cached_property
    def mark(self) -> str:
        """Of the model's weights."""
        digest = hashlib.sha256(type(self.inner).__name__.encode())
        for name, tensor in self.inner.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def scorer(place: str) -> Scorer:
    """A model by its folder or known name, as a scorer.

    Raises:
        PacelineError: it is an endpoint's address, or none that can be trained; see `lm.adapted.ready`.
    """
    if place.startswith(("http://", "https://")):
        raise PacelineError(
            f"Adapters need the weights of a model, and {place[:200]} gives none: name a small model of this machine "
            "that chooses, such as by='smollm2'; the endpoint may still answer."
        )
    made = ready(place)
    made.model.requires_grad_(False)
    return Scorer(place, made.model.eval(), made.inner, open_lm(place).words, made.prefix)


class Bank:
    """Adapters, one for each group of texts.

    Args:
        scorer: the model.
        groups: an adapter learns the texts of its group in turn, one a step, each at least once.
        adapter: rank, scale, targets and the least share of maps that it must find.
        steps: of Adam, at least.
        rate: of learning, constant.
        longest: tokens of a text that are read.
        folder: where adapters are kept. Default: in memory alone.

    Raises:
        PacelineError: a group without a text, no step, or a model that has nothing to adapt.

    Attributes:
        trained: adapters that this bank trained itself; the others were kept.
        tokens: that have been read to train and to score, padding included.
    """

    def __init__(
        self,
        scorer: Scorer,
        groups: Sequence[Sequence[str]],
        adapter: LoRA | None = None,
        steps: int = 4,
        rate: float = 1e-3,
        longest: int = 256,
        folder: Path | None = None,
    ) -> None:
        if not groups or not all(groups) or steps < 1 or longest < 1 or not rate > 0:
            raise PacelineError(
                f"No adapter comes of {len(groups)} groups of texts, steps={steps}, rate={rate} and longest={longest}."
            )
        if adapter is not None and adapter.dropout:
            raise PacelineError("Adapters that are compared learn without dropout: leave it out.")
        self.scorer, self.groups, self.steps, self.rate = scorer, [tuple(group) for group in groups], steps, rate
        self.adapter, self.longest, self.folder = adapter or LoRA(rank=4), longest, folder
        self.scale = self.adapter.alpha / self.adapter.rank
        self.maps = _maps(scorer.inner, self.adapter)
        self.trained = self.tokens = 0
        self._kept: dict[int, list[Tensor]] = {}

    def __len__(self) -> int:
        return len(self.groups)

    def prepare(self, progress: Progress | None = None) -> None:
        """Train what is not kept. It may be interrupted and called again: what was finished is not trained again.

        Args:
            progress: told how many of how many adapters are done, and the last ones' loss in nats per token.
        """
        missing = [number for number in range(len(self)) if number not in self._kept and not self._restore(number)]
        done = len(self) - len(missing)
        for lot in self._lots(missing):
            loss = self._train(lot)
            self.trained += len(lot)
            done += len(lot)
            if progress is not None:
                progress(done, len(self), loss)

    def begun(self) -> dict[str, Tensor]:
        """Where all adapters begin: A drawn as LoRA draws it, the same for all, that they differ by texts alone."""
        generator, found, rank = torch.Generator().manual_seed(derive(0, "bank")), [], self.adapter.rank
        for module in self.maps.values():
            read, made = _sizes(module)
            bound = read**-0.5
            found += [(2 * torch.rand(rank, read, generator=generator) - 1) * bound, torch.zeros(made, rank)]
        return dict(zip(self._names(), found, strict=True))

    def tensors(self, number: int) -> dict[str, Tensor]:
        """An adapter's matrices, under the names that PEFT saves LoRA with."""
        return dict(zip(self._names(), self._kept[number], strict=True))

    @torch.no_grad()
    def costs(self, texts: Sequence[str]) -> Float[Tensor, "t m"]:
        """Nats per token of each text under each of n adapters, and, last, under the model alone: (t, n + 1)."""
        self.prepare()
        ids = [self.scorer.ids(text, self.longest) for text in texts]
        cells = [(row, number) for row in range(len(texts)) for number in range(len(self) + 1)]
        cells.sort(key=lambda cell: (len(ids[cell[0]]), cell[1]))  # of like lengths, and of one adapter
        found = torch.empty(len(texts), len(self) + 1)
        zeros = [torch.zeros(tensor.shape) for tensor in self._kept[0]]
        for lot in lots([len(ids[row]) for row, _ in cells], ROOM):
            rows = [cells[i] for i in lot]
            chosen = [self._kept.get(number, zeros) for _, number in rows]
            costs = self._losses([torch.stack(tensors) for tensors in zip(*chosen, strict=True)],
                                 [ids[row] for row, _ in rows])  # fmt: skip
            for (row, number), cost in zip(rows, costs.tolist(), strict=True):
                found[row, number] = cost
        return found

    def _names(self) -> list[str]:
        return [f"{OUTSIDE}{self.scorer.prefix}{name}.lora_{side}.weight" for name in self.maps for side in "AB"]

    def _lots(self, missing: Sequence[int]) -> Iterator[list[int]]:
        """Adapters that train in one batch: those that take as many steps, as many as there is room for."""
        order = sorted(missing, key=lambda number: (self._length(number), number))
        for steps in sorted({self._length(number) for number in missing}):
            same = [number for number in order if self._length(number) == steps]
            longest = [max(len(self.scorer.ids(text, self.longest)) for text in self.groups[n]) for n in same]
            yield from ([same[i] for i in lot] for lot in lots(longest, ROOM))

    def _length(self, number: int) -> int:
        return max(self.steps, len(self.groups[number]))

    @torch.enable_grad()
    def _train(self, lot: Sequence[int]) -> float:
        """Train these, and keep them; their last mean loss."""
        begun = self.begun().values()
        numbers = [tensor.expand(len(lot), *tensor.shape).clone().requires_grad_() for tensor in begun]
        ids = [[self.scorer.ids(text, self.longest) for text in self.groups[number]] for number in lot]
        optimizer = torch.optim.Adam(numbers, lr=self.rate)
        for step in range(self._length(lot[0])):
            losses = self._losses(numbers, [texts[step % len(texts)] for texts in ids])
            for parameter, slope in zip(numbers, torch.autograd.grad(losses.sum(), numbers), strict=True):
                parameter.grad = slope
            optimizer.step()
        for row, number in enumerate(lot):
            self._kept[number] = [tensor.detach()[row].clone() for tensor in numbers]
            if self.folder is not None:
                write_atomic(self._file(number), save(self.tensors(number), {"format": "pt"}))
        return losses.mean().item()

    def _losses(self, numbers: Sequence[Tensor], ids: Sequence[Sequence[int]]) -> Float[Tensor, " n"]:
        """Nats per token of row i under adapter i."""
        longest = max(map(len, ids))
        read = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids])
        wanted = torch.tensor([[*row[1:], *[IGNORE] * (longest - len(row))] for row in ids])
        self.tokens += read.numel()
        with self._through(numbers):
            logits = self.scorer.model.logits(read[:, :-1])
        losses = functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORE, reduction="none")
        return losses.sum(1) / (wanted != IGNORE).sum(1)

    @contextmanager
    def _through(self, numbers: Sequence[Tensor]) -> Iterator[None]:
        pairs = zip(self.maps.values(), numbers[::2], numbers[1::2], strict=True)
        hooks = [module.register_forward_hook(partial(_updated, a, b, self.scale)) for module, a, b in pairs]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _file(self, number: int) -> Path:
        assert self.folder is not None
        settings = (self.steps, self.rate, self.longest, self.adapter.rank, self.adapter.alpha, tuple(self.maps))
        digest = hashlib.sha256(repr((self.scorer.mark, settings, self.groups[number])).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.safetensors"

    def _restore(self, number: int) -> bool:
        """Whether an adapter was kept; one that is broken, or of other shapes, is not."""
        if self.folder is None or not self._file(number).is_file():
            return False
        try:
            found = read_tensors(self._file(number))
        except PacelineError:
            return False
        expected = {name: tensor.shape for name, tensor in self.begun().items()}
        if {name: tensor.shape for name, tensor in found.items()} != expected:
            return False
        self._kept[number] = [found[name] for name in expected]
        return True


def _maps(model: nn.Module, adapter: LoRA) -> dict[str, nn.Module]:
    """The maps that this LoRA would adapt, by name.

    Raises:
        PacelineError: none, or too small a share.
    """
    maps = list(linear_maps(model))
    ends = tuple(f".{target}" for target in adapter.targets)
    named = [name for name, adaptable in maps if adaptable and (not ends or f".{name}".endswith(ends))]
    if not named or len(named) < adapter.least * len(maps):
        raise PacelineError(
            f"Of the {len(maps)} linear maps of this {type(model).__name__}, {len(named)} can be adapted: give other "
            "targets, a lower `least`, or another model."
        )
    return {name: model.get_submodule(name) for name in named}


def _sizes(module: Any) -> tuple[int, int]:
    """Inputs and outputs of a map; transformers' Conv1D holds its weight the other way round."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    read, made = module.weight.shape
    return int(read), int(made)


def _updated(a: Tensor, b: Tensor, scale: float, module: nn.Module, inputs: tuple[Tensor, ...], made: Tensor) -> Tensor:
    """What a map gives with its update, each row of the batch its own. Rows laid out one after the other are split."""
    x = inputs[0]
    if len(x) % len(a) or x.ndim < 2 or (x.ndim > 2 and len(x) != len(a)):
        raise PacelineError(f"A {type(module).__name__} of this model does not read rows one by one: take another.")
    rows = x.reshape(len(a), -1, x.shape[-1])
    update: Tensor = torch.bmm(torch.bmm(rows, a.transpose(1, 2)), b.transpose(1, 2))
    return made + scale * update.view_as(made)
