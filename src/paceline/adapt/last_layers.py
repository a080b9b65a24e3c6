"""The last layers alone are trained; those below stay as they are.

With k of L layers, k / L of the layers' numbers are trained, and no gradient has to go below them. The norm after the
layers, the embedding and the head stay. LoRA's paper has it as a rival with two layers (`FT-Top2`, its table 3).
"""

from collections.abc import Collection

from torch import nn

from paceline.adapt._chosen import Chosen
from paceline.adapt._contract import Adapter, body
from paceline.core.card import Source
from paceline.core.errors import PacelineError

PAPERS = (
    Source(
        title="How transferable are features in deep neural networks?",
        arxiv="1411.1792",
        year=2014,
        says="copies the first layers, frozen, and trains those above on the new task",
    ),
)


class LastLayers(Chosen):
    """Train the last layers.

    Args:
        layers: how many.

    Raises:
        PacelineError: fewer than one.
    """

    rates = (1e-4, 3e-4, 1e-3)

    def __init__(self, layers: int = 2) -> None:
        if layers < 1:
            raise PacelineError(f"last_layers trains at least 1 layer, not {layers}.")
        self.layers = layers

    def choose(self, model: nn.Module) -> Collection[str]:
        """See `Chosen.choose`."""
        stack = body(model)
        if self.layers > len(stack):
            raise PacelineError(f"The model has {len(stack)} layers, fewer than layers={self.layers}: give fewer.")
        mine = {id(parameter) for layer in list(stack)[-self.layers :] for parameter in layer.parameters()}
        return [name for name, parameter in model.named_parameters() if id(parameter) in mine]


def example() -> list[Adapter]:
    """The last layer."""
    return [LastLayers(layers=1)]
