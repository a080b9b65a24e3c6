"""FSDP2 (`torch.distributed.fsdp.fully_shard`) for `lm.distributed`: each process keeps a part of every parameter.

Two departures from plain FSDP2. It cannot shard a scalar (SeqBoat's temperature), so scalars are whole everywhere and
their gradients are summed here. And it sends zeros for a parameter that had no part in a step, upon which AdamW would
decay its moments and weights; where no process used it, the zeros are taken away. Imported only where it is used.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from paceline.core.errors import PacelineError
from paceline.core.hints import hint
from paceline.lm.decoder import Decoder
from paceline.lm.distributed import Replicated


class Sharded(Replicated):
    """FSDP2: parameters, gradients and moments are cut over the processes, and a layer is whole only while it runs.

    The model that was given stays behind in main memory, to be filled when the training is over.
    """

    def adopt(self, model: Decoder) -> Decoder:
        """A sharded copy."""
        if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
            raise PacelineError(f"--parallel fsdp needs a newer torch than {torch.__version__}: take --parallel ddp.")
        trained = copy.deepcopy(model).to(self.device)
        scalars = {parameter for parameter in trained.parameters() if parameter.ndim == 0}
        mesh = init_device_mesh(self.device.type, (self.size,))
        for layer in (*trained.stack, trained):
            fully_shard(layer, mesh=mesh, ignored_params=scalars)
        assert isinstance(trained, FSDPModule)
        trained.set_reduce_scatter_unused_params(True)
        register_fsdp_forward_method(trained, "logits")
        for original, parameter in zip(model.parameters(), trained.parameters(), strict=True):
            hint(parameter, **getattr(original, "hints", {}))  # which neither a copy nor a shard keeps
        self._used: set[str] = set()
        for index, layer in enumerate(trained.stack):
            layer.register_forward_pre_hook(self._watch(f"layers.{index}."))
        return trained

    def release(self, trained: Decoder, model: Decoder) -> None:
        """Gathered into the model that was given."""
        model.load_state_dict({name: self.whole(tensor) for name, tensor in trained.state_dict().items()})

    def logits(self, trained: Decoder, ids: Tensor, prompt: int = 0) -> Tensor:
        """See `World.logits`."""
        return trained.logits(ids, prompt)

    def clip(self, trained: Decoder, limit: float) -> Tensor:
        """The norm of shards and scalars together, once the gradients are those of one process."""
        self._settle(trained)
        split: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for parameter in trained.parameters():
            split[parameter.ndim == 0].append(parameter)
        norms = [nn.utils.get_total_norm([p.grad for p in some if p.grad is not None]) for some in split]
        norm = torch.stack([_full(norm).to(self.device) for norm in norms]).norm()
        for some in split:  # apart, for one operation does not take both kinds
            nn.utils.clip_grads_with_norm_(some, limit, norm)
        return norm

    def whole(self, tensor: Tensor) -> Tensor:
        """See `World.whole`."""
        return _full(tensor).cpu()

    def part(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        """See `World.part`."""
        if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
            return tensor.to(self.device)
        place = (parameter.device_mesh, parameter.placements)
        return distribute_tensor(tensor.to(self.device), *place, src_data_rank=None)  # all have it: none is sent

    def _watch(self, prefix: str) -> Callable[[nn.Module, Any], None]:
        """A hook that, where a layer's parameters are whole for the first time, has their gradients noted."""
        watched: set[str] = set()

        def look(layer: nn.Module, _: Any) -> None:
            for name, parameter in layer.named_parameters(prefix.rstrip(".")):
                if name not in watched:
                    watched.add(name)
                    parameter.register_post_accumulate_grad_hook(lambda _, name=name: self._used.add(name))

        return look

    def _settle(self, trained: Decoder) -> None:
        """Sum the scalars' gradients, and take away the zeros of parameters that no process used."""
        named = [(name, p) for name, p in trained.named_parameters() if name.startswith("layers.")]
        scalars = [p for _, p in named if p.ndim == 0]
        gradients = [0.0 if p.grad is None else p.grad.item() / self.size for p in scalars]
        summed = self.sum(*(float(name in self._used) for name, _ in named), *gradients)
        for parameter, gradient in zip(scalars, summed[len(named) :], strict=True):
            parameter.grad = torch.full_like(parameter, gradient)
        for (_, parameter), uses in zip(named, summed, strict=False):
            if not uses:
                parameter.grad = None
        self._used.clear()


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
