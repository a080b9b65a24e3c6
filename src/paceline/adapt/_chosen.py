"""Adapters that add nothing: they train some of the model's own numbers, and so have nothing to merge."""

from abc import abstractmethod
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from paceline.adapt._contract import Adapter, Coverage, trainable
from paceline.core.errors import PacelineError
from paceline.core.files import write_atomic

WEIGHTS = "trained.safetensors"
"""The trained numbers, by their names in the model."""


class Chosen(Adapter):
    """An adapter that is a choice among the model's parameters."""

    @abstractmethod
    def choose(self, model: nn.Module) -> Collection[str]:
        """Names of the parameters that are trained.

        Raises:
            PacelineError: the model has none of the kind.
        """

    def _apply(self, model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
        chosen = set(self.choose(model))
        covered: list[str] = []
        bare: list[str] = []
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
            (covered if name in chosen else bare).append(name)
        if not covered:
            raise PacelineError(f"{type(model).__name__} has no numbers that {type(self).__name__} could train.")
        return tuple(covered), tuple(bare)

    def save(self, model: nn.Module, folder: Path, *, prefix: str = "", base: str = "") -> None:
        """See `Adapter.save`."""
        tensors = {prefix + name: p.detach().contiguous() for name, p in trainable(model).items()}
        write_atomic(folder / WEIGHTS, save(tensors, {"base": base}))

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, prefix: str = "") -> Coverage:
        """See `Adapter.load`."""
        coverage = self.apply(model)
        fill(trainable(model), read_tensors(folder / WEIGHTS), prefix)
        return coverage


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A file of safetensors.

    Raises:
        PacelineError: it is missing or broken.
    """
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise PacelineError(f"{path} cannot be read ({error}): give a folder that an adapter was saved in.") from error


@torch.no_grad()
def fill(parameters: dict[str, nn.Parameter], saved: dict[str, Tensor], prefix: str) -> None:
    """Copy saved tensors, whose names begin with `prefix`, into the parameters.

    Raises:
        PacelineError: other names or shapes.
    """
    shapes = {prefix + name: parameter.shape for name, parameter in parameters.items()}
    found = {name: tensor.shape for name, tensor in saved.items()}
    if shapes != found:
        odd = next((name for name in (*shapes, *found) if shapes.get(name) != found.get(name)), "")
        raise PacelineError(f"The saved adapter does not fit this model ({odd}): give the model that it was made for.")
    for name, parameter in parameters.items():
        parameter.copy_(saved[prefix + name])
