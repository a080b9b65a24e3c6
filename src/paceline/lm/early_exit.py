"""LayerSkip's training recipe: layers that are dropped the more the deeper they are, and a loss at every exit.

    h_{l+1} = h_l + m (layer_l(h_l) - h_l),  m = 0 for a sequence with probability
    p(l, t) = S(t) (exp(l ln 2 / (L-1)) - 1) p_max,  S(t) = 1, or exp(t ln 2 / (T-1)) - 1 from scratch
    loss = sum_l e~(t, l) CE(head(h_{l+1}), next),  e~(t, l) = C(t, l) e(l) / sum_i C(t, i) e(i)
    e(l) = (e_scale where l < L-1, else 1) sum_{i <= l} (i + 1)

for layers l = 0..L-1 and steps t = 0..T-1, with one norm and head for all exits. The curriculum C says which exits
count: in rotation every R-th, another one each step; or gradually, from the last layer down, all by half of the steps.
The last always does. Formulas as the paper's authors contributed them to torchtune; there dropped layers are not
computed, here they are and their result is thrown away.

`attach(model, ...)` makes any `Decoder` train so in `lm/train.py`'s loop, and `detach(model)` gives back the plain one.
The loop adds its own loss with weight 1, so what is added to it is the recipe's loss, divided by e~(t, L-1).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.lm.decoder import Decoder

NAME = "early_exit"
"""What the recipe's module is called while it is attached."""

Curriculum = Callable[[int, int, int], list[bool]]
"""From (step, steps, layers) to which exits count."""


def dropout_rates(layers: int, largest: float, share: float = 1.0) -> list[float]:
    """p(l, t) of each layer; `share` is S(t)."""
    return [share * largest * math.expm1(layer * math.log(2) / max(layers - 1, 1)) for layer in range(layers)]


def rising(step: int, steps: int) -> float:
    """S(t) of a training from scratch."""
    return math.expm1(min(step, steps - 1) * math.log(2) / max(steps - 1, 1))


def rotational(every: int) -> Curriculum:
    """Every R-th exit, one further on at each step."""
    return lambda step, steps, layers: [(layer - step) % every == 0 for layer in range(layers)]


def gradual(step: int, steps: int, layers: int) -> list[bool]:
    """One exit more every T / 2L steps, from the last down."""
    return [step / steps >= 0.5 * (layers - layer) / layers for layer in range(layers)]


def exit_weights(exits: list[bool], scale: float) -> list[float]:
    """e~(t, l) of each layer, for the exits that the curriculum names; they sum to 1."""
    last = len(exits) - 1
    raw = [(layer + 1) * (layer + 2) / 2 * (scale if layer < last else 1.0) for layer in range(len(exits))]
    counted = [
        weight if on or layer == last else 0.0 for layer, (weight, on) in enumerate(zip(raw, exits, strict=True))
    ]
    return [weight / sum(counted) for weight in counted]


class EarlyExit(nn.Module):
    """The recipe, as a part of the model that it is attached to: it drops, listens, and asks for its loss.

    Args:
        steps: T, of the training.
        dropout: p_max.
        scale: e_scale.
        curriculum: which exits count at each step.
        from_scratch: whether S(t) rises; otherwise it is 1.
    """

    step: Tensor

    def __init__(self, steps: int, dropout: float, scale: float, curriculum: Curriculum, from_scratch: bool) -> None:
        super().__init__()
        self.steps, self.dropout, self.scale, self.from_scratch = steps, dropout, scale, from_scratch
        self._curriculum = curriculum
        self.register_buffer("step", torch.tensor(-1))  # in the checkpoints, so that training resumes where it was
        self._hooks: list[Any] = []
        self._heard: list[Tensor] = []
        self._ids: Tensor | None = None
        self._model: list[Decoder] = []  # in a list: not a part of this part

    def begin_step(self) -> None:
        """An optimizer step begins."""
        self.step += 1

    @property
    def _now(self) -> int:
        return max(int(self.step), 0)

    def auxiliary_loss(self) -> Float[Tensor, ""]:
        """The losses of the exits l < L-1 in the last run, each times e~(t, l) / e~(t, L-1)."""
        model = self._model[0]
        weights = exit_weights(self._curriculum(self._now, self.steps, len(model.stack)), self.scale)
        loss = model.embedding.weight.new_zeros(())
        if self._ids is None or self._ids.shape[1] < 2:
            return loss
        targets = self._ids[:, 1:].flatten()
        for hidden, weight in zip(self._heard[:-1], weights, strict=False):
            if weight:
                logits = model._head(model.norm(hidden[:, :-1])).flatten(0, 1)
                loss = loss + weight / weights[-1] * functional.cross_entropy(logits, targets)
        return loss

    def listen(self, model: Decoder) -> None:
        """Hang on to the embedding and the layers."""
        self._model = [model]
        self._hooks = [model.embedding.register_forward_hook(self._begin)]
        self._hooks += [layer.register_forward_hook(self._hear(index)) for index, layer in enumerate(model.stack)]

    def stop(self) -> None:
        """Let go of them."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._heard, self._ids, self._model = [], [], None, []

    def _begin(self, module: nn.Module, given: tuple[Any, ...], result: Tensor) -> None:
        if torch.is_grad_enabled() and module.training:
            self._ids, self._heard = given[0], []

    def _hear(self, index: int) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        def hook(module: nn.Module, given: tuple[Any, ...], result: Tensor) -> Tensor | None:
            if not (torch.is_grad_enabled() and module.training):
                return None
            share = rising(self._now, self.steps) if self.from_scratch else 1.0
            rate = dropout_rates(len(self._model[0].stack), self.dropout, share)[index]
            dropped = torch.rand(len(result), 1, 1, device=result.device) < rate
            result = torch.where(dropped, given[0], result) if rate else result
            self._heard.append(result)
            return result

        return hook


def attach(
    model: Decoder, steps: int, *, dropout: float = 0.1, scale: float = 0.2, curriculum: Curriculum = gradual,
    from_scratch: bool = True,
) -> EarlyExit:  # fmt: skip
    """Make a model train by the recipe, until `detach`; evaluation and generation are as before.

    The exits learn to tell the next token of the sequence, so the task should be text.

    Args:
        model: changed in place.
        steps: of the training, which the curricula are laid over.
        dropout: p_max, of the last layer.
        scale: e_scale, from 0 (only the last exit) to 1.
        curriculum: `gradual` or `rotational(every)`.
        from_scratch: whether the dropout rises with the steps; False to go on with a trained model.

    Raises:
        PacelineError: a number outside its range, fewer than two layers, or it is attached already.
    """
    if not (0 <= dropout < 1 and 0 <= scale <= 1 and steps >= 1):
        raise PacelineError(f"Cannot train early exits with dropout={dropout}, scale={scale}, steps={steps}.")
    if len(model.stack) < 2:
        raise PacelineError("Early exits need a model of at least two layers.")
    if NAME in model._modules:
        raise PacelineError("The model trains early exits already: detach the first.")
    part = EarlyExit(steps, dropout, scale, curriculum, from_scratch)
    model.add_module(NAME, part)
    part.listen(model)
    return part


def detach(model: Decoder) -> None:
    """Make it a plain model again, whose weights are all that is left of the recipe."""
    part = model._modules.pop(NAME, None)
    if isinstance(part, EarlyExit):
        part.stop()
