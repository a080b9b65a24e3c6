"""What an adapter is: a choice of the numbers that are trained when a model goes on with new text, and nothing else.

It is applied to any `nn.Module` in place, says what it covers, and refuses to cover nothing: training would "finish",
and nothing would have been learned. Until it is trained, the model does what it did.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from paceline.core.errors import PacelineError

SMALL = (torch.int8, torch.uint8)
"""Types of weights that take 8 bits or fewer: they have no gradient."""


@dataclass(frozen=True)
class Coverage:
    """What an adapter found in a model."""

    covered: tuple[str, ...]
    """Parts that are adapted, by name."""
    bare: tuple[str, ...]
    """Parts of the same kind that are not."""
    trained: int
    """Numbers that are trained."""
    whole: int
    """Numbers of the model as it was."""

    @property
    def share(self) -> float:
        """Of the parts."""
        return len(self.covered) / max(1, len(self.covered) + len(self.bare))

    @property
    def trained_share(self) -> float:
        """Numbers trained, as a share of the model's."""
        return self.trained / max(1, self.whole)


class Adapter(ABC):
    """A way to adapt. It holds settings alone; what it adds lives in the model, which every method is given."""

    rates: ClassVar[tuple[float, ...]]
    """Learning rates to choose from, as many for every adapter."""

    def apply(self, model: nn.Module) -> Coverage:
        """Make the model train what this adapter chooses, and nothing else, in place.

        Raises:
            PacelineError: it is no module, its weights are compressed, or there is nothing in it to adapt.
        """
        kind = type(model).__name__
        if not isinstance(model, nn.Module):
            raise PacelineError(f"{kind} is no torch module, and only such can be adapted: give the model itself.")
        if any(tensor.dtype in SMALL for tensor in (*model.parameters(), *model.buffers())):
            raise PacelineError(
                f"The weights of this {kind} take 8 bits or fewer and have no gradient: adapt the model first, and "
                "compress it afterwards."
            )
        whole = sum(parameter.numel() for parameter in model.parameters())
        covered, bare = self._apply(model)
        return Coverage(covered, bare, sum(p.numel() for p in trainable(model).values()), whole)

    @abstractmethod
    def _apply(self, model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The same; names of the parts that are covered, and of those that could have been."""

    def merge(self, model: nn.Module) -> None:  # noqa: B027 - most add nothing that could be merged
        """Put what was learned into the model's own weights, so that it costs nothing to use; `unmerge` takes it out.

        Raises:
            PacelineError: the adapter was not applied to this model.
        """

    def unmerge(self, model: nn.Module) -> None:  # noqa: B027
        """The inverse of `merge`."""

    def finish(self, model: nn.Module) -> None:
        """Merge for good: the model has the modules that it had, with what was learned in its weights."""
        self.merge(model)

    def meters(self, model: nn.Module) -> dict[str, float]:
        """What training did, where that shows in the model."""
        return {}

    @abstractmethod
    def save(self, model: nn.Module, folder: Path, *, prefix: str = "", base: str = "") -> None:
        """Write what was trained, unmerged, into `folder`.

        Args:
            model: that it was applied to.
            folder: is made.
            prefix: of this model's names in the Hugging Face model that holds it, such as `model.`.
            base: the model that it was applied to, as a reader may find it.
        """

    @abstractmethod
    def load(self, model: nn.Module, folder: Path, *, prefix: str = "") -> Coverage:
        """Apply to a model, as `apply`, and give it what `save` wrote.

        Raises:
            PacelineError: nothing of this kind is there, or it does not fit the model.
        """


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained, by name; shared ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def body(model: nn.Module) -> nn.ModuleList:
    """The model's layers: the list of modules that holds the most numbers.

    Raises:
        PacelineError: it has none.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not lists:
        raise PacelineError(f"{type(model).__name__} has no list of layers.")
    found: Any = max(lists, key=lambda module: sum(p.numel() for p in module.parameters()))
    return found  # type: ignore[no-any-return]
