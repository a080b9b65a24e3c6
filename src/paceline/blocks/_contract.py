"""What every block promises: (..., d) -> (..., d) in `example()`, finite, with a gradient for every parameter."""

from typing import Protocol

from torch import nn


class BlockModule(Protocol):
    """A method's module in this folder."""

    PAPERS: tuple[object, ...]

    def example(self) -> nn.Module:
        """The smallest instance, taking (2, t, 8) alone."""
        ...
