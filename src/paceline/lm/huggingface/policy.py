"""Any cache policy in a loaded Hugging Face causal LM: `use = use_policy(model, Quest())`.

    model.generate(ids, past_key_values=use.cache())

The model's attention is exchanged by transformers' own interface, and a cache of the policy's own takes the place of
the model's: its layers hand new keys and values through, and the attention that is called next gives them to the
policy, which reads and remembers. So every policy works, those that forget too; beams and several sequences of one
length as well. Taking tokens back (assisted decoding) is refused unless the policy's memory can be cut.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from paceline.context._contract import Memory, Place, Policy
from paceline.core.errors import PacelineError
from paceline.core.growing import TOKENS, front

_NUMBERS = count()


class PolicyLayer(CacheLayerMixin):  # type: ignore[misc, unused-ignore]
    """What one layer remembers."""

    is_sliding = False
    supports_early_init = False

    def __init__(self, use: "Use") -> None:
        super().__init__()
        self.use, self.length = use, 0
        self.memory: Memory = {}

    @property
    def is_croppable(self) -> bool:  # type: ignore[override, unused-ignore]
        """Whether tokens can be taken back."""
        return self.use.policy.cuts

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The memory of nothing."""
        batch, heads, _, width = key_states.shape
        self.memory = self.use.policy.empty(batch, heads, width, key_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hands the new ones on to the attention, which is called next and completes `memory`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.use.next = self
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Tokens read."""
        return self.length

    def get_max_length(self) -> int:
        """None."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """As of a cache that keeps everything: masks are about tokens, not about what is left of them."""
        return self.length + query_length, 0

    def reset(self) -> None:
        """Forget everything."""
        self.memory, self.length, self.is_initialized = {}, 0, False

    def crop(self, tokens_to_remove: int) -> None:
        """Take tokens back, given as a negative number.

        Raises:
            PacelineError: the policy cannot.
        """
        if tokens_to_remove and not self.is_croppable:
            raise PacelineError(f"{type(self.use.policy).__name__} cannot take tokens back: decode without drafts.")
        self.length -= abs(tokens_to_remove)
        self._map(lambda x: front(x, self.length) if x.ndim > TOKENS else x)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """For beams."""
        self._map(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence several times."""
        self._map(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Some of the sequences."""
        self._map(lambda x: x[indices])

    def _map(self, change: Callable[[Tensor], Tensor]) -> None:
        self.memory = {name: change(x) for name, x in self.memory.items()}


class PolicyCache(Cache):  # type: ignore[misc, unused-ignore]
    """A transformers cache whose layers remember as a policy does."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(x.nbytes for layer in self.layers if isinstance(layer, PolicyLayer) for x in layer.memory.values())


class Use:
    """A policy at work in a model."""

    def __init__(self, policy: Policy, layers: int) -> None:
        self.policy, self.layers = policy, layers
        self.next: PolicyLayer | None = None
        """The layer whose attention comes next."""

    def cache(self) -> PolicyCache:
        """An empty cache, for one run of `generate`."""
        return PolicyCache(layers=[PolicyLayer(self) for _ in range(self.layers)])

    def meters(self) -> dict[str, float]:
        """The policy's."""
        return self.policy.meters()


def use_policy(model: PreTrainedModel, policy: Policy) -> Use:
    """Exchange the attention of a model, in place, for that of a policy.

    Args:
        model: a causal LM that looks its attention up in transformers' `AttentionInterface`.
        policy: of `context/`.

    Returns:
        What gives caches to generate with: without one of them the model reads, but does not go on.

    Raises:
        PacelineError: the model has no attention that can be exchanged; and, when it is run, for another cache,
            dropout, a sliding window, or anything else that changes the scores; for padding, if the policy knows no
            masks.
    """
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    use = Use(policy, layers)
    name = f"paceline_policy_{next(_NUMBERS)}"
    AttentionInterface.register(name, _attention(use))
    AttentionMaskInterface.register(name, _mask_for(policy))
    model.set_attn_implementation(name)
    taken = [m for m in model.modules() if isinstance(getattr(m, "is_causal", None), bool) and hasattr(m, "layer_idx")]
    if model.config._attn_implementation != name or {m.layer_idx for m in taken} != set(range(layers)):
        raise PacelineError(
            f"{type(model).__name__} has layers without attention that can be exchanged: no policy can take its place."
        )
    return use


def _attention(use: Use) -> Callable[..., tuple[Tensor, None]]:
    """The function that a model's layers call, (b, h, t, s) -> (b, t, h, s)."""

    def attention(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, dropout: float = 0.0,
        scaling: float | None = None, **other: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        for thing in ("sliding_window", "softcap", "s_aux", "position_bias"):
            if other.get(thing) is not None:
                raise PacelineError(f"use_policy: {type(module).__name__} has a {thing}, which policies do not know.")
        if dropout or not getattr(module, "is_causal", True):
            raise PacelineError("use_policy: policies are causal and without dropout: call model.eval().")
        layer, use.next = use.next, None
        index: int = module.layer_idx  # type: ignore[assignment]
        if k.shape[2] != q.shape[2] or v.shape[3] != k.shape[3]:
            raise PacelineError("use_policy: this cache is not the policy's: give past_key_values=use.cache().")
        if layer is None:  # nothing is to be remembered
            layer = PolicyLayer(use)
            layer.lazy_initialization(k, v)
        width = k.shape[3]
        if scaling is not None and scaling != width**-0.5:  # policies divide by the root of the width
            q = q * (scaling * width**0.5)
        out, layer.memory = use.policy.attend(q, k, v, layer.memory, Place(index, use.layers, layer.length, mask))
        layer.length += q.shape[2]
        return out.transpose(1, 2).contiguous(), None

    return attention


def _mask_for(policy: Policy) -> Callable[..., Tensor | None]:
    def mask(
        *, q_length: int, kv_length: int, q_offset: int = 0, attention_mask: Tensor | None = None,
        allow_is_causal_skip: bool = True, **_: Any,
    ) -> Tensor | None:  # fmt: skip
        """None where the causal mask says it all, else (b, 1, t, n), True where a query sees a key."""
        if kv_length != q_offset + q_length or not allow_is_causal_skip:
            raise PacelineError("use_policy: a policy needs one document a row, with no mask of its own.")
        if attention_mask is None or attention_mask.all():
            return None
        if not policy.masks:
            raise PacelineError(
                f"{type(policy).__name__} reads no padding: give sequences of one length, or one at a time."
            )
        keys = torch.arange(kv_length, device=attention_mask.device)
        queries = torch.arange(q_offset, kv_length, device=attention_mask.device)
        sees = (keys <= queries[:, None]) & attention_mask[:, None, None, :kv_length].bool()
        return sees | (keys == queries[:, None])  # padding sees itself, so that no row is empty

    return mask
