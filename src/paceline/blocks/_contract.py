"""What every block promises: (..., d) -> (..., d) in `example()`, finite, with a gradient for every parameter.

A block that takes `d_model` and `hidden` and has `flops(batch, length)` is a feed-forward, for `--feed-forward`. It may
have more, which `lm.decoder` looks for in any module:

    begin_step() -> None          an optimizer step begins; a step has one or more passes (gradient accumulation)
    auxiliary_loss() -> scalar    what it wants to be small besides the task's loss, for its last run, with its weight;
                                  a step's loss has the mean over the batch's sequences, over passes and processes
    meters() -> dict              numbers about its last run, for the tables
"""

from typing import Protocol

from torch import nn


class BlockModule(Protocol):
    """A method's module in this folder."""

    PAPERS: tuple[object, ...]

    def example(self) -> nn.Module:
        """The smallest instance, taking (2, t, 8) alone."""
        ...
