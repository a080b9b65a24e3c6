"""HiP attention in a loaded Hugging Face causal LM, without training: `use_hip(model, keys=512)`.

The model's attention is exchanged by transformers' own interface, so `generate`, caches and everything else go on as
before. The first layers stay dense, as in the paper. A prompt is read in blocks of queries; a step of decoding, whose
past queries no cache keeps, chooses its keys by its own query. Reading a prompt in pieces therefore chooses other keys
than reading it at once, though never by tokens that come later.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from paceline.core.errors import PacelineError
from paceline.mixers._hip import Pruning, Select, hip_attention, tree_search

_NUMBERS = count()


@dataclass
class Use:
    """HiP at work in a model."""

    attended: dict[int, float] = field(default_factory=dict)
    """By layer: of the pairs that full attention sees, the share that was seen in the last run."""

    def meters(self) -> dict[str, float]:
        """As a mixer's."""
        return {f"attended.{layer}": share for layer, share in sorted(self.attended.items())}


def use_hip(
    model: PreTrainedModel,
    sizes: Pruning | None = None,
    dense_layers: int = 3,
    select: Select = tree_search,
    **more: int,
) -> Use:
    """Exchange the attention of a model, in place, for HiP.

    Args:
        model: a causal LM that looks its attention up in transformers' `AttentionInterface`.
        sizes: how much is attended.
        dense_layers: how many of the first layers keep full attention.
        select: how key blocks are chosen.
        **more: sizes by name, such as `keys=512`, where `sizes` is not given.

    Returns:
        What HiP does from here on.

    Raises:
        PacelineError: the model has no attention that can be exchanged; and, when it is run, for padding, packed
            sequences, a static cache, a sliding window, dropout, or anything else that changes the scores.
    """
    if sizes is not None and more:
        raise PacelineError(f"use_hip: give either sizes, or {', '.join(more)}, not both.")
    use = Use()
    name = f"paceline_hip_{next(_NUMBERS)}"
    AttentionInterface.register(name, _attention(sizes or Pruning(**more), dense_layers, select, use))
    AttentionMaskInterface.register(name, _no_mask)
    model.set_attn_implementation(name)
    taken = any(isinstance(getattr(m, "is_causal", None), bool) and hasattr(m, "layer_idx") for m in model.modules())
    if model.config._attn_implementation != name or not taken:
        raise PacelineError(
            f"{type(model).__name__} has no attention that can be exchanged: HiP cannot take its place."
        )
    return use


def _attention(sizes: Pruning, dense_layers: int, select: Select, use: Use) -> Callable[..., tuple[Tensor, None]]:
    """The function that a model's layers call, (b, h, t, s) -> (b, t, h, s)."""
    everything = Pruning(keys=2**40)

    def attention(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, dropout: float = 0.0,
        scaling: float | None = None, **other: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        for thing in ("sliding_window", "softcap", "s_aux", "position_bias"):
            if other.get(thing) is not None:
                raise PacelineError(f"use_hip: {type(module).__name__} has a {thing}, which HiP does not know.")
        if mask is not None or dropout or not getattr(module, "is_causal", True):
            raise PacelineError("use_hip: HiP is causal, without other masks and without dropout: call model.eval().")
        layer: int = module.layer_idx  # type: ignore[assignment]
        pruned = layer >= dense_layers
        out, did = hip_attention(q, k, v, sizes if pruned else everything, scale=scaling, select=select)
        if pruned:
            use.attended[layer] = did.attended / did.causal
        return out.transpose(1, 2).contiguous(), None

    return attention


def _no_mask(
    *, q_length: int, kv_length: int, q_offset: int = 0, attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True, **_: Any,
) -> None:  # fmt: skip
    """Refuse everything that a plain causal mask cannot say."""
    if attention_mask is not None and not attention_mask.all():
        raise PacelineError("use_hip: HiP reads no padding: give sequences of one length, or one at a time.")
    if kv_length != q_offset + q_length or not allow_is_causal_skip:
        raise PacelineError("use_hip: HiP needs a plain growing cache and one document a row, with no mask of its own.")
