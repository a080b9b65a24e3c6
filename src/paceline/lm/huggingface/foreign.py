"""`logits, state = lm(ids, state)` of any Hugging Face causal LM whose cache is a `transformers.Cache`.

Attention, sliding windows, state-space models and hybrids: the tensors of the cache become a `State`, which is a value,
so they fork, rewind and select like Paceline's own models.
"""

import copy
import hashlib
import inspect
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from paceline.core.errors import PacelineError
from paceline.core.state import State


class HuggingFaceLM(nn.Module):
    """A Hugging Face causal LM under `core.state.LM`.

    Args:
        model: in evaluation mode from here on.

    Raises:
        PacelineError: its forward pass takes no cache that we know.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model.eval()
        self.vocab_size: int = model.config.get_text_config().vocab_size
        sizes = [(name, p.shape) for name, p in model.named_parameters()]
        self._kind = f"{type(model).__name__} {hashlib.sha256(repr(sizes).encode()).hexdigest()}"
        known = inspect.signature(model.forward).parameters
        self._cuts = "logits_to_keep" in known
        self._cache_name = next((name for name in ("past_key_values", "cache_params") if name in known), "")
        if not self._cache_name:
            raise PacelineError(f"{type(model).__name__} takes no cache: Paceline cannot decode with it.")

    def initial_state(self, batch: int) -> State:
        """The empty past of `batch` sequences."""
        layers, facts = _unpack(DynamicCache(config=self.model.config.get_text_config(decoder=True)), batch)
        return State(layers, 0, facts, self._kind)

    def forward(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t v"], State]:
        """Logits of each next token, and the state after them."""
        return self._read(ids, state, ids.shape[1])

    def read_end(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b 1 v"], State]:
        """See `core.read_end`."""
        return self._read(ids, state, 1)

    def _read(self, ids: Tensor, state: State | None, last: int) -> tuple[Tensor, State]:
        """With the logits after so many of the last tokens."""
        state = self.initial_state(len(ids)) if state is None else state
        state.check(self._kind, ids)
        read, cache = state.to_read(ids), _pack(state)
        recurrent = any(name.startswith("recurrent_states.") for layer in state.layers for name in layer)
        logits, asked = [], {"logits_to_keep": last} if self._cuts else {}
        # Token by token where a past is recurrent: Mamba forgets it when several follow (transformers 5.23).
        for piece in read.split(1, dim=1) if recurrent else (read,):
            out = self.model(input_ids=piece, use_cache=True, **{self._cache_name: cache}, **asked)
            logits.append(out.logits)
        layers, facts = _unpack(out[self._cache_name], len(ids))
        return torch.cat(logits, dim=1)[:, -last:], state.after(read, layers, facts)


def _unpack(cache: Cache, batch: int) -> tuple[tuple[Mapping[str, Tensor], ...], Cache]:
    """The tensors of a cache, layer by layer, and the cache without them."""
    bare, found = copy.copy(cache), []
    bare.layers = []
    for layer in cache.layers:
        rest, tensors = copy.copy(layer), {}
        for name, value in vars(layer).items():
            if isinstance(value, Tensor) and value.ndim > 1 and len(value) == batch:
                tensors[name] = value
                setattr(rest, name, None)
            elif isinstance(value, dict):  # of states, or of facts, by number
                tensors |= {f"{name}.{key}": entry for key, entry in value.items() if isinstance(entry, Tensor)}
                kept = {key: None if isinstance(entry, Tensor) else entry for key, entry in value.items()}
                setattr(rest, name, kept)
        bare.layers.append(rest)
        found.append(tensors)
    return tuple(found), bare


def _pack(state: State) -> Cache:
    """A cache that may be written to: what it would change in place is copied."""
    cache = copy.copy(state.facts)
    cache.layers = []
    for bare, tensors in zip(state.facts.layers, state.layers, strict=True):
        layer = copy.copy(bare)
        for name, value in vars(bare).items():
            if isinstance(value, dict):
                states = {key: tensors.get(f"{name}.{key}") for key in value}
                setattr(layer, name, {key: value[key] if s is None else s.clone() for key, s in states.items()})
        for name, tensor in tensors.items():
            if "." not in name:  # keys and values grow into new tensors
                setattr(layer, name, tensor)
        cache.layers.append(layer)
    return cache
