"""Paceline's parts in a loaded Hugging Face model: `graft(model, "model.layers.*.mlp", lambda mlp: SMA(mlp, 576))`.

A mixer takes the place of an attention module inside `InPlaceOfAttention`, whose past lies in the model's own cache, so
that `generate`, beams and `HuggingFaceLM` go on working. It is fresh and has to be trained.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from paceline.core.errors import PacelineError
from paceline.mixers._contract import Mixer


def graft(model: nn.Module, pattern: str, make: Callable[[nn.Module], nn.Module]) -> list[str]:
    """Replace the modules whose names match, in place; the names of those replaced.

    Args:
        model: any model.
        pattern: names as of `named_modules`, with `*` and `?`: `model.layers.[02].self_attn`.
        make: what takes the place of a module; gets the module, and may wrap it.

    Raises:
        PacelineError: nothing matches.
    """
    found = {name: module for name, module in model.named_modules() if name and fnmatchcase(name, pattern)}
    if not found:
        like = [name for name, _ in model.named_modules() if name.count(".") == pattern.count(".")][:3]
        raise PacelineError(f"No module of {type(model).__name__} matches {pattern!r}: names are like {like}.")
    for name, module in found.items():
        if any(name.startswith(f"{other}.") for other in found):
            continue  # gone with the module around it
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, make(module))
    return list(found)


class InPlaceOfAttention(nn.Module):
    """A mixer where a Hugging Face decoder layer calls its attention.

    Args:
        mixer: of the model's width.
        attention: the module that it replaces, which knows its number.

    Raises:
        PacelineError: the module has no number, so it is no attention of a decoder.
    """

    def __init__(self, mixer: Mixer, attention: nn.Module) -> None:
        super().__init__()
        number = getattr(attention, "layer_idx", None)
        if not isinstance(number, int):
            raise PacelineError(f"{type(attention).__name__} is no attention of a decoder: it has no layer_idx.")
        self.mixer, self.layer_idx = mixer, number

    def forward(self, hidden_states: Tensor, *_: Any, **more: Any) -> tuple[Tensor, None]:
        """(b, t, d) -> (b, t, d), after the past in the cache, if there is one. Masks are not looked at: no padding."""
        cache: Cache | None = more.get("past_key_values")
        if cache is None:
            return self.mixer(hidden_states), None
        layer = self._layer(cache)
        state = layer.state or self.mixer.initial_state(len(hidden_states))
        y, layer.state = self.mixer.extend(hidden_states, state)
        layer.seen += hidden_states.shape[1]
        return y, None

    def _layer(self, cache: Cache) -> "MixerLayer":
        layer = cache.layers[self.layer_idx]
        if not isinstance(layer, MixerLayer):
            layer = cache.layers[self.layer_idx] = MixerLayer()
        return layer


class MixerLayer(DynamicLayer):
    """A mixer's state as a layer of a Hugging Face cache."""

    is_croppable = False

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.state: dict[str, Tensor] = {}
        self.seen = 0

    def get_seq_length(self) -> int:
        """Tokens seen."""
        return self.seen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beams."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Sequences of the batch."""
        self.state = {name: tensor.index_select(0, indices) for name, tensor in self.state.items()}

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence `repeats` times."""
        self.state = {name: tensor.repeat_interleave(repeats, dim=0) for name, tensor in self.state.items()}

    def crop(self, tokens_to_remove: int) -> None:
        """A recurrent state cannot go back."""
        if tokens_to_remove:
            raise PacelineError("This model has a recurrent layer, whose cache cannot be cropped: decode plainly.")
