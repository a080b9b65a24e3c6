"""A cache of 4 or 8 bits a number, behind a rotation of queries and keys: how a compressed Llama remembers.

    q, k = q H, k H          each head, after positions; q k' stays
    code = clamp(round(x / s) + z), x' = s (code - z)      of each token and head; `_grid.py`

Every query reads the cache as it is kept, its own token too, so that reading in pieces gives what reading at once
gives. Memory of a token and head: bits / 8 of a byte a number, a step and a byte for zero, keys and values each.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paceline.compress._grid import codes, pack, parameters, unpack
from paceline.compress._hadamard import turn
from paceline.core.errors import PacelineError
from paceline.core.growing import append, empty

Memory = Mapping[str, Tensor]


class CodedCache:
    """A cache policy (`attend`, `empty` and what it promises, as `context/` has them).

    Args:
        bits: 4 or 8; 16 keeps numbers as they are.
        turned: whether queries and keys are turned by a Hadamard matrix.
    """

    exact = False
    cuts = True
    masks = True
    pieces = "any"
    evicts = False
    blind = True

    def __init__(self, bits: int, turned: bool) -> None:
        self.bits, self.turned = bits, turned

    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        """What is remembered of nothing: codes, step and zero of keys and values, each (b, g, 0, .).

        Raises:
            PacelineError: two numbers of 4 bits do not fill the bytes of a head.
        """
        if self.bits >= 16:
            return {"k": empty(batch, heads, width, like), "v": empty(batch, heads, width, like)}
        if width * self.bits % 8:
            raise PacelineError(f"Heads of width {width} do not fill bytes with {self.bits} bits: write cache=8.")
        byte = empty(batch, heads, width * self.bits // 8, like).to(torch.uint8)
        one = empty(batch, heads, 1, like)
        parts = {"codes": byte, "step": one, "zero": one.to(torch.uint8)}
        return {f"{name}_{part}": tensor.clone() for name in "kv" for part, tensor in parts.items()}

    def attend(
        self, q: Float[Tensor, "b h t s"], k: Float[Tensor, "b g t s"], v: Tensor, memory: Memory, place: Any
    ) -> tuple[Float[Tensor, "b h t s"], Memory]:
        """What the queries read, and what is remembered with the new keys and values."""
        if self.turned:
            q, k = turn(q), turn(k)
        if self.bits >= 16:
            after = {"k": append(memory["k"], k), "v": append(memory["v"], v)}
            return attention(q, after["k"], after["v"], place.mask), after
        after = {
            name: append(memory[name], part)
            for which, x in (("k", k), ("v", v))
            for name, part in self._encode(which, x).items()
        }
        return attention(q, self._decode("k", after, k), self._decode("v", after, v), place.mask), after

    def _encode(self, name: str, x: Tensor) -> dict[str, Tensor]:
        step, zero = parameters(x, self.bits)
        kept = codes(x, step, zero, self.bits).to(torch.uint8)
        return {
            f"{name}_codes": pack(kept) if self.bits == 4 else kept,
            f"{name}_step": step,
            f"{name}_zero": zero.to(torch.uint8),
        }

    def _decode(self, name: str, memory: Memory, like: Tensor) -> Tensor:
        kept = memory[f"{name}_codes"]
        kept = unpack(kept, like.shape[-1]) if self.bits == 4 else kept
        return (kept.to(like.dtype) - memory[f"{name}_zero"].to(like.dtype)) * memory[f"{name}_step"]

    def meters(self) -> dict[str, float]:
        """Nothing is chosen."""
        return {}


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention of the last tokens to all: causal, or by mask; queries share key heads."""
    length, keys = q.shape[2], k.shape[2]
    if mask is None and 1 < length < keys:
        mask = torch.ones(length, keys, dtype=torch.bool, device=q.device).tril(keys - length)
    causal = mask is None and length > 1
    return functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, enable_gqa=True)
