"""LoRA: a frozen linear map gets a low-rank update, the only thing that is trained.

    y = W x + (alpha / r) B A x,   A (r, i) drawn at random, B (o, r) zero at first

so r (i + o) numbers are trained for a map of i o, and the model begins as it was. Merged, W + (alpha / r) B A costs
nothing to use; training holds gradients and moments of A and B alone. The layers are PEFT's, and so is what is saved.

Departures: all linear maps but the head are adapted, where the paper's experiments chose among those of attention
(`targets` chooses too); A is drawn as in the authors' code, uniformly, where the paper says Gaussian.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from paceline.adapt._chosen import fill, read_tensors
from paceline.adapt._contract import Adapter, Coverage, trainable
from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.files import write_atomic

PAPERS = (
    Paper(
        title="LoRA: Low-Rank Adaptation of Large Language Models",
        arxiv="2106.09685",
        year=2021,
        says="adapts a model by low-rank updates of its frozen weights, at no cost once merged",
    ),
)
NAME = "default"
"""Of the adapter in PEFT's layers, as PEFT itself calls it."""
OUTSIDE = "base_model.model."
"""What PEFT puts before a model's names."""
READ_ELSEWHERE = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Kinds of transformers' models in which the weights of two maps are read by a kernel that knows nothing of an update:
PEFT refuses `out_proj`, and `dt_proj` would be left without a gradient."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class LoRA(Adapter):
    """Low-rank updates of linear maps.

    Args:
        rank: r of the updates.
        alpha: their scale is alpha / r. A constant as the rank varies, so that the learning rate need not be.
        targets: ends of the names of the maps to adapt, such as `('q_proj', 'v_proj')`. Default: all but the head.
        least: share of the maps below which it refuses.
        dropout: on what the updates read, while training.

    Raises:
        PacelineError: a rank below 1, or another number out of its range.
    """

    rates = (5e-4, 1.5e-3, 5e-3)

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16.0,
        targets: tuple[str, ...] = (),
        least: float = 0.5,
        dropout: float = 0.0,
    ) -> None:
        if rank < 1:
            raise PacelineError(f"An update of rank={rank} adapts nothing: give at least 1.")
        if not (alpha > 0 and 0 <= least <= 1 and 0 <= dropout < 1):
            raise PacelineError(f"LoRA cannot work with alpha={alpha}, least={least}, dropout={dropout}.")
        self.rank, self.alpha, self.targets, self.least, self.dropout = rank, alpha, targets, least, dropout

    def _apply(self, model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
        maps = list(linear_maps(model))
        ends = tuple(f".{target}" for target in self.targets)
        wanted = [name for name, adaptable in maps if adaptable and (not ends or f".{name}".endswith(ends))]
        kind = type(model).__name__
        if not maps:
            raise PacelineError(f"{kind} has no linear map that LoRA could adapt.")
        if not wanted:
            raise PacelineError(f"LoRA fits nothing in {kind}: none of its maps, such as {maps[0][0]}, is named so.")
        bare = tuple(name for name, _ in maps if name not in set(wanted))
        if len(wanted) / len(maps) < self.least:
            raise PacelineError(
                f"LoRA would adapt {len(wanted) / len(maps):.0%} of the linear maps, less than {self.least:.0%}: "
                f"without {bare[0]} and {len(bare) - 1} more. Give other targets, or a lower `least`."
            )
        peft = _peft()
        _inject(
            model, peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=wanted)
        )
        return tuple(wanted), bare

    def merge(self, model: nn.Module) -> None:
        """See `Adapter.merge`."""
        for _, layer in adapted(model):
            if not layer.merged:
                layer.merge(adapter_names=[NAME])

    def unmerge(self, model: nn.Module) -> None:
        """See `Adapter.unmerge`."""
        for _, layer in adapted(model):
            if layer.merged:
                layer.unmerge()

    def finish(self, model: nn.Module) -> None:
        """See `Adapter.finish`."""
        self.merge(model)
        for name, layer in list(adapted(model)):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, layer.get_base_layer())
        for mark in ("peft_config", "_hf_peft_config_loaded"):
            model.__dict__.pop(mark, None)

    @torch.no_grad()
    def meters(self, model: nn.Module) -> dict[str, float]:
        """`moved`: size of an update over that of its map, on average; `reached`: share of the maps that have one."""
        moved: list[Tensor] = []
        for _, layer in adapted(model):
            update, weight = layer.get_delta_weight(NAME), layer.get_base_layer().weight
            moved.append(update.norm() / (weight - update if layer.merged else weight).norm().clamp_min(1e-30))
        sizes = torch.stack(moved)
        return {"moved": sizes.mean().item(), "reached": (sizes > 0).float().mean().item()}

    def save(self, model: nn.Module, folder: Path, *, prefix: str = "", base: str = "") -> None:
        """See `Adapter.save`; as `peft.PeftModel.from_pretrained` reads it."""
        names = [name for name, _ in adapted(model)]
        peft = _peft()
        config: Any = peft.LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, inference_mode=True, task_type="CAUSAL_LM",
            target_modules=[prefix + name for name in names], base_model_name_or_path=base or None,
        )  # fmt: skip
        config.peft_version = None
        facts = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
        write_atomic(folder / CONFIG, json.dumps(facts, indent=1, sort_keys=True) + "\n")
        tensors = {_outside(name, prefix): p.detach().contiguous() for name, p in _numbers(model).items()}
        write_atomic(folder / WEIGHTS, save(tensors, {"format": "pt"}))

    def load(self, model: nn.Module, folder: Path, *, prefix: str = "") -> Coverage:
        """See `Adapter.load`; rank, scale and targets are the saved ones."""
        try:
            facts = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            plain = {"peft_type": "LORA", "rank_pattern": {}, "alpha_pattern": {}, "use_dora": False, "bias": "none"}
            if odd := [key for key, value in plain.items() if facts.get(key, value) != value]:
                raise PacelineError(f"{folder} holds an adapter with {odd[0]}={facts[odd[0]]!r}: open it with PEFT.")
            self.rank, self.alpha = int(facts["r"]), float(facts["lora_alpha"])
            self.targets = tuple(name.removeprefix(prefix) for name in facts["target_modules"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PacelineError(f"{folder} holds no LoRA adapter ({error}): give a folder with {CONFIG}.") from error
        self.least = 0.0
        coverage = self.apply(model)
        tensors = read_tensors(folder / WEIGHTS)
        own = {_outside(name, prefix): name for name in _numbers(model)}
        fill(_numbers(model), {own.get(name, name): tensor for name, tensor in tensors.items()}, "")
        return coverage


def linear_maps(model: nn.Module) -> Iterator[tuple[str, bool]]:
    """Names of the maps that a layer could learn by, but the head, and whether LoRA can adapt them.

    Those of experts that are stacked in one parameter (e, o, i) count, and cannot be: what is left out is to be seen.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    elsewhere = getattr(getattr(model, "config", None), "model_type", None) in READ_ELSEWHERE
    for name, module in model.named_modules():
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module is not head:
            yield name, not (elsewhere and name.endswith(("out_proj", "dt_proj")))
        elif not isinstance(module, nn.modules.conv._ConvNd):
            for own, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 3 and min(parameter.shape) > 1:
                    yield f"{name}.{own}", False


def adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The maps with updates, by name.

    Raises:
        PacelineError: there are none.
    """
    found = [(name, module) for name, module in model.named_modules() if hasattr(module, "lora_A")]
    if not found:
        raise PacelineError(f"This {type(model).__name__} has no LoRA adapter: apply one first.")
    return iter(found)


def _inject(model: nn.Module, config: Any) -> None:
    peft = _peft()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses a name to save under, which we give
        try:
            peft.inject_adapter_in_model(config, model, NAME)
        except ValueError as error:
            raise PacelineError(f"LoRA fits nothing in {type(model).__name__} ({error}): name its layers.") from error


def _numbers(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in trainable(model).items() if ".lora_" in name}


def _outside(name: str, prefix: str) -> str:
    """A name as PEFT saves it."""
    return OUTSIDE + prefix + name.replace(f".{NAME}.", ".")


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise PacelineError("LoRA needs PEFT: pip install 'paceline[adapt]'.") from error
    return peft


def example() -> list[Adapter]:
    """Two ranks and scales."""
    return [LoRA(rank=2), LoRA(rank=3, alpha=1.0)]
