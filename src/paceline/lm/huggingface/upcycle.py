"""Sparse upcycling (arXiv 2212.05055): a loaded model's feed-forwards become mixtures of experts.

    graft(model, "model.layers.*.mlp", lambda mlp: upcycle(mlp, experts=4, top=2))
    handle = balanced(model)

Every expert begins as a copy of the feed-forward and the weights of the chosen sum to 1, so the model says what it
said. `balanced` adds the load-balancing loss to the loss that the model computes from labels, so that a training loop
need not know of it, the Trainer of transformers and TRL's included.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from paceline.blocks.moe import MoE
from paceline.core.errors import PacelineError

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@torch.no_grad()
def upcycle(mlp: nn.Module, experts: int = 4, top: int = 2, balance: float = 0.01, scope: str = "global") -> MoE:
    """A mixture whose experts are copies of a gated feed-forward of the Llama kind.

    Args:
        mlp: has the linear layers gate_proj, up_proj and down_proj without bias, and SiLU between them.
        experts: their number.
        top: how many a token is sent to; 2 or more, for a single one is scaled by its probability.
        balance: weight of the load-balancing loss.
        scope: see `MoE`.

    Raises:
        PacelineError: another kind of module, or `top` below 2 or above `experts`.
    """
    layers = [getattr(mlp, name, None) for name in PROJECTIONS]
    if not all(isinstance(layer, nn.Linear) and layer.bias is None for layer in layers):
        raise PacelineError(f"{type(mlp).__name__} cannot be upcycled: it needs {', '.join(PROJECTIONS)} without bias.")
    probe = torch.linspace(-3, 3, 7)
    act = getattr(mlp, "act_fn", None)
    if act is None or not torch.allclose(act(probe), nn.functional.silu(probe)):
        raise PacelineError(
            f"{type(mlp).__name__} cannot be upcycled: the gate of the experts is SiLU, and its is not."
        )
    if top < 2:
        raise PacelineError(
            f"top={top} would scale the model's outputs by the router's probability: give top=2 or more."
        )
    gate, up, down = (layer.weight for layer in layers if isinstance(layer, nn.Linear))
    mixture = MoE(gate.shape[1], gate.shape[0], experts, top, balance, scope)
    mixture.inner.copy_(torch.cat((gate, up)))
    mixture.outer.copy_(down)
    return mixture.to(gate.device, gate.dtype).train(mlp.training)


def begin_step(model: nn.Module) -> None:
    """Tell the mixtures in a model that an optimizer step begins, where a step has several passes (scope `global`).

    Under the Trainer of transformers: in a callback's `on_step_begin`.
    """
    for module in model.modules():
        if isinstance(module, MoE):
            module.begin_step()


def auxiliary_loss(model: nn.Module) -> torch.Tensor:
    """The mixtures' load-balancing losses of the last run in training, each with its weight, summed.

    Raises:
        PacelineError: there is no mixture in the model.
    """
    losses = [module.auxiliary_loss() for module in model.modules() if isinstance(module, MoE)]
    if not losses:
        raise PacelineError(f"There is no mixture of experts in {type(model).__name__}: graft one with `upcycle`.")
    return torch.stack([loss.to(losses[0].device) for loss in losses]).sum()


def balanced(model: nn.Module, passes: int = 1) -> RemovableHandle:
    """Have the model add `auxiliary_loss` to its loss, where it is in training and given labels.

    Args:
        model: a Hugging Face model with mixtures in it.
        passes: over how many passes a step's losses are summed instead of averaged, such as the Trainer's
            `gradient_accumulation_steps` (it divides by the tokens of all of them).

    Returns:
        What ends it, by `remove()`.

    Raises:
        PacelineError: there is no mixture in the model.
    """
    auxiliary_loss(model)

    def add(module: nn.Module, _: Any, output: Any) -> None:
        if module.training and torch.is_grad_enabled() and getattr(output, "loss", None) is not None:
            extra = auxiliary_loss(module).to(output.loss.device)
            output.loss = output.loss + extra / passes

    return model.register_forward_hook(add)
