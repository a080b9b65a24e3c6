"""Full fine-tuning: every number of the model is trained.

Nothing is added, so nothing is merged. Training holds the gradient and AdamW's two moments of all n numbers, 4 n in
all; what is saved is as large as the model. The rival of every other adapter. On the command line `full` will do.
"""

from collections.abc import Collection

from torch import nn

from paceline.adapt._chosen import Chosen
from paceline.adapt._contract import Adapter
from paceline.core.card import Source

PAPERS = (
    Source(
        title="Universal Language Model Fine-tuning for Text Classification",
        arxiv="1801.06146",
        year=2018,
        says="goes on training a whole language model on the text of the task",
    ),
)


class FullFinetuning(Chosen):
    """Train everything."""

    rates = (3e-5, 1e-4, 3e-4)

    def choose(self, model: nn.Module) -> Collection[str]:
        """See `Chosen.choose`."""
        return [name for name, parameter in model.named_parameters() if parameter.is_floating_point()]


def example() -> list[Adapter]:
    """The adapter."""
    return [FullFinetuning()]
