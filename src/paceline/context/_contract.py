"""What a cache policy is: how one layer of attention remembers, and which of it a query reads.

A model calls `attend` once a layer with its new queries, keys and values, positions already applied. What the policy
remembers is the layer's part of the model's `State`: tensors with the batch first, never changed in place. So every
policy forks, selects and takes back like any other state, and the bytes it holds are `state.nbytes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from paceline.core.errors import PacelineError

if TYPE_CHECKING:
    from paceline.context._steps import Step

Memory = Mapping[str, Tensor]
"""What a layer remembers."""
PIECE = 32
"""Queries from which on it pays to attend to the past and to their own keys apart."""


@dataclass(frozen=True)
class Place:
    """Where new tokens stand."""

    layer: int
    """Of the model, from 0."""
    layers: int
    """How many the model has."""
    length: int
    """Tokens that were read before these."""
    mask: Bool[Tensor, "#b #h t n"] | None = None
    """True where a query sees a key, the past's first; None: each sees the past, the earlier ones and itself."""


class Policy(ABC):
    """How attention remembers.

    Attributes:
        exact: whether it attends as full attention does, up to rounding.
        cuts: whether everything it remembers has the tokens along dimension 2, so that taking back is cutting.
        masks: whether it knows masks other than the causal one (padding, sets of texts).
        pieces: whether reading in pieces gives what reading at once gives: of `any` size, single tokens included; of
            `several` tokens each, single ones being steps of decoding; or `none`, for what is kept is decided after
            each piece.
        evicts: whether it forgets: then it has a number `tokens`, and remembers no more of a prompt that was read.
        blind: whether what it keeps of a prompt does not depend on the prompt's last tokens, the question. One that is
            not becomes so by reading the context first and the question as a piece of its own.
    """

    exact: bool = False
    cuts: bool = False
    masks: bool = False
    pieces: str = "none"
    evicts: bool = False
    blind: bool = True

    @abstractmethod
    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        """What is remembered of nothing: `heads` key and value heads of `width` numbers, typed as `like`."""

    @abstractmethod
    def attend(
        self,
        q: Float[Tensor, "b h t s"],
        k: Float[Tensor, "b g t s"],
        v: Float[Tensor, "b g t s"],
        memory: Memory,
        place: Place,
    ) -> tuple[Float[Tensor, "b h t s"], Memory]:
        """What the queries read, and what is remembered with the new keys and values. h is a multiple of g.

        Raises:
            PacelineError: `place.mask` is given to a policy that does not know masks.
        """

    def step_quickly(self, step: "Step", past: Sequence[Memory]) -> Sequence[Memory] | None:
        """All layers of a model in one compiled loop, as `attend` up to rounding, or None where it has none for this.

        What the layers remember then is returned. For one sequence, and where the policy knows masks for a token of
        each of several; float32 on a processor; called only where numba is installed.
        """
        return None

    def meters(self) -> dict[str, float]:
        """What it did when the model was last called: shares and counts by name."""
        return {}

    def refuse_mask(self, place: Place) -> None:
        """For policies that know none.

        Raises:
            PacelineError: there is a mask.
        """
        if place.mask is not None:
            raise PacelineError(
                f"{type(self).__name__} knows no masks: give sequences of one length, or one at a time, and no sets."
            )


def read(
    q: Float[Tensor, "b h t s"],
    k: Float[Tensor, "b g n s"],
    v: Float[Tensor, "b g n s"],
    mask: Bool[Tensor, "#b #h t n"] | None = None,
) -> Float[Tensor, "b h t s"]:
    """Softmax attention of t queries at the end of n >= t keys, causal or by mask; h / g queries share a key head."""
    batch, heads, length, width = q.shape
    groups, keys = k.shape[1], k.shape[2]
    share = heads // groups
    if length == 1 and mask is None:  # the heads that share keys stand as queries side by side: nothing is copied
        return functional.scaled_dot_product_attention(q.reshape(batch, groups, share, width), k, v).reshape(q.shape)
    if mask is None and keys == length:
        k, v = (x.repeat_interleave(share, dim=1) for x in (k, v)) if share > 1 else (k, v)
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    if mask is None and length >= PIECE and _tells_sums(q, k, v):
        return _past_and_own(q, k, v)
    if mask is None:
        mask = torch.ones(length, keys, dtype=torch.bool, device=q.device).tril(keys - length)[None, None]
    if mask.shape[1] == 1:
        mask = mask.repeat(1, 1, share, 1)
        joined = functional.scaled_dot_product_attention(q.reshape(batch, groups, share * length, width), k, v, mask)
        return joined.reshape(q.shape)
    k, v = (x.repeat_interleave(share, dim=1) for x in (k, v))
    return functional.scaled_dot_product_attention(q, k, v, mask)


def _tells_sums(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch has attention that also tells the log-sum-exp of such scores, and nobody wants gradients of it."""
    known = hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    return known and q.device.type == "cpu" and not wanted


def _past_and_own(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The past, which all queries see, and their own keys, causally, joined by what the scores of either come to.

    With a mask half of the products of the queries' own keys are for nothing, and the mask is as large as the scores.
    """
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    batch, heads, length, width = q.shape
    groups, past = k.shape[1], k.shape[2] - length
    share = heads // groups
    own_k, own_v = (x[:, :, past:].repeat_interleave(share, dim=1) for x in (k, v))
    own, own_sum = attend(q, own_k, own_v, 0.0, True)
    joined = q.reshape(batch, groups, share * length, width)
    before, before_sum = (x.reshape(batch, heads, length, -1) for x in attend(joined, k[:, :, :past], v[:, :, :past]))
    return own.lerp(before, (before_sum - own_sum.reshape(before_sum.shape)).sigmoid().to(own.dtype))
