"""Rounding every map of a model in one pass over calibration text."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.compress._columns import by_columns, hessian
from paceline.compress._grid import weight_scale
from paceline.compress._low import PLAIN, LowBits, hidden
from paceline.compress._packed import Inputs, PackedLinear
from paceline.core.errors import PacelineError
from paceline.core.state import LM


class Fitting(nn.Module):
    """A map that is rounded by the first inputs that it reads, and gives what it then gives, of inputs as they are."""

    def __init__(self, how: LowBits, linear: nn.Linear, inputs: Inputs) -> None:
        super().__init__()
        self.how, self.inputs, self.bias = how, inputs, linear.bias
        self.linear = [linear]  # in a list, so that it is no part of this module
        self.made: nn.Module | None = None

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """Not rounded."""
        return self.linear[0].weight

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """As the map: with rounded weights, and inputs that are turned but not yet on a grid."""
        turned = Inputs(turned=self.inputs.turned)
        x = turned.of(x)
        if self.made is None:
            self.made = self._round(turned.of(self.weight.detach().double()).float(), x.detach().float())
        return functional.linear(x, self.made.weight.to(x), self.bias)  # type: ignore[operator, arg-type]

    def _round(self, weight: Float[Tensor, "o i"], x: Float[Tensor, "*b i"]) -> PackedLinear:
        how = self.how
        scale = weight_scale(weight, how.weights, how.group, how.clip)
        codes = by_columns(weight, hessian(x.flatten(0, -2)), scale, how.weights)
        return PackedLinear(codes, scale, self.bias, how.weights, self.inputs)


def fitted(how: LowBits, lm: LM, texts: Callable[[LM], Int[Tensor, "n t"]]) -> Any:
    """A copy of the model whose maps are rounded by GPTQ; those that the texts did not reach, to nearest.

    Raises:
        PacelineError: as `LowBits.exchanged`, or the weights are to stay as they are.
    """
    if how.weights == PLAIN:
        raise PacelineError(f"{type(how).__name__} rounds weights: write weights=4 or weights=8.")
    twin = how.exchanged(lm, lambda linear, inputs: Fitting(how, linear, inputs))
    hidden(twin, texts(lm))
    done: dict[int, nn.Module] = {}
    for module in list(twin.modules()):
        for name, child in module._modules.items():
            if isinstance(child, Fitting):
                made = child.made or done.get(id(child)) or how.nearest(child.linear[0], child.inputs)
                module._modules[name] = done.setdefault(id(child), made)
    return twin
