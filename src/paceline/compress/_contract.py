"""What a compression is: a function from a model to a smaller one that does the same, and how many bits it takes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from paceline.core.errors import PacelineError
from paceline.core.state import LM


class Compression(ABC):
    """A way to make a model smaller. The model that it is given stays as it is.

    Attributes:
        llamas: whether it knows models of Llama's kind only (`lm/huggingface/llama.py`).
    """

    llamas: bool = False

    @property
    @abstractmethod
    def bits(self) -> float:
        """Bits of a compressed weight, with what goes with it (scales), as declared for matrices 1,024 wide."""

    @abstractmethod
    def apply(self, lm: LM) -> LM:
        """The smaller model.

        Raises:
            PacelineError: there is nothing in it that can be compressed.
        """


def exchange_linears(lm: LM, make: Callable[[nn.Linear], nn.Module]) -> LM:
    """A copy of the model that shares everything with it but its linear maps, which `make` replaces.

    Raises:
        PacelineError: it is no module, or has no linear maps.
    """
    if not isinstance(lm, nn.Module) or not any(isinstance(module, nn.Linear) for module in lm.modules()):
        raise PacelineError(f"{type(lm).__name__} has no linear maps whose weights could take fewer bits.")
    copied: Any = _copy(lm, make, {})
    return copied  # type: ignore[no-any-return]


def _copy(module: nn.Module, make: Callable[[nn.Linear], nn.Module], done: dict[int, nn.Module]) -> nn.Module:
    if id(module) in done:
        return done[id(module)]
    if isinstance(module, nn.Linear):
        return done.setdefault(id(module), make(module))
    twin = module.__class__.__new__(module.__class__)
    twin.__dict__.update(module.__dict__)
    twin._modules = {name: None if m is None else _copy(m, make, done) for name, m in module._modules.items()}
    done[id(module)] = twin
    return twin


def example_ids() -> Int[Tensor, "2 24"]:
    """Two texts of tokens 0 to 7, for the examples of compressions that are calibrated."""
    return torch.arange(48).square().add(torch.arange(48) // 5).remainder(8).view(2, 24)
