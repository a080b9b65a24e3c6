"""LoRA through PEFT, with a report of what it covers: an adapter that quietly finds little to adapt teaches nothing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from paceline.core.errors import PacelineError

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Coverage:
    """Which linear maps have an adapter; the head counts only where it has one."""

    covered: tuple[str, ...]
    bare: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the linear maps."""
        return len(self.covered) / (len(self.covered) + len(self.bare))


def add_lora(
    model: PreTrainedModel, rank: int = 8, *, targets: str | list[str] = "all-linear", least: float = 0.5, **more: Any
) -> "tuple[PeftModel, Coverage]":
    """The model with low-rank adapters on its linear maps, and which those are.

    Args:
        model: any Hugging Face model; its own weights are frozen.
        rank: of the adapters.
        targets: names or a pattern as PEFT takes them; by default every linear map but the head.
        least: share of the linear maps below which it refuses.
        more: further arguments of `peft.LoraConfig`.

    Raises:
        PacelineError: nothing matches, or too little.
    """
    from peft import LoraConfig, get_peft_model

    head = model.get_output_embeddings()
    maps = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    if not maps:
        raise PacelineError(f"{type(model).__name__} has no linear map that LoRA could adapt.")
    try:
        adapted = get_peft_model(model, LoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM", **more))
    except ValueError as error:
        raise PacelineError(f"LoRA fits nothing in {type(model).__name__} ({error}): name its layers.") from error
    wrapped = {
        name.removeprefix("base_model.model.")
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A")
    }  # fmt: skip
    found = Coverage(tuple(sorted(wrapped)), tuple(name for name in maps if name not in wrapped))
    if found.share < least:
        raise PacelineError(
            f"LoRA would adapt {found.share:.0%} of the linear maps, less than {least:.0%}: without {found.bare[0]} "
            f"and {len(found.bare) - 1} more. Give other targets, or a lower `least`."
        )
    return adapted, found
