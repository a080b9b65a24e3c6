"""Quantised cache: keys and values are kept in 8 or 4 bits, the last tokens in full precision.

    code = round((x - low) / step),   step = (high - low) / (2^bits - 1),   x' = low + step code

Low and high of keys are by channel over `group` tokens, for keys have channels that are large throughout; those of
values are by token and head, as in KIVI. Memory 2 g s n bits / 8 bytes and the lows and steps, 2 / group of the
numbers of the keys and 2 / s of those of the values. A step turns all of it back into numbers, in compiled loops block
by block as they are read, elsewhere as a whole. A piece of a prompt reads itself in full precision and what came before
it as kept.

Departures: keys and values both go over in whole groups, once `recent + group` are in full precision (the authors flush
keys by the residual's length and values one by one); a value's range is of the whole head (theirs of 32 channels).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from paceline.context._contract import Memory, Place, Policy, read
from paceline.context._rows import whole
from paceline.context._steps import Step, quantised_step
from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.growing import append, empty

PAPERS = (Source(title="KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache", arxiv="2402.02750", year=2024),)


class Quantised(Policy):
    """Keeps everything, in few bits.

    Args:
        bits: 8 or 4.
        group: tokens that go over together.
        recent: how many of the last tokens stay in full precision at least.

    Raises:
        PacelineError: other bits; or, when it is used, 4 bits of heads of an odd width.
    """

    masks = True

    def __init__(self, bits: int = 8, group: int = 32, recent: int = 128) -> None:
        whole("Quantised", 2, group=group)
        whole("Quantised", 0, recent=recent)
        if bits not in (4, 8):
            raise PacelineError(f"Quantised: bits must be 8 or 4, not {bits}.")
        self.bits, self.group, self.recent = bits, group, recent

    def empty(self, batch: int, heads: int, width: int, like: Tensor) -> Memory:
        """See `Policy.empty`: `k`, `v` in full precision behind `codes`, keys then values, with their low and step."""
        if width * self.bits % 8:
            raise PacelineError(f"Quantised: heads of width {width} do not fill bytes with {self.bits} bits: take 8.")
        sizes = {"k": width, "v": width, "k_low": width, "k_step": width, "v_low": 1, "v_step": 1}
        memory = {name: empty(batch, heads, size, like) for name, size in sizes.items()}
        codes = empty(batch, heads, width * self.bits // 8, like).to(torch.uint8)
        return {**memory, "k_codes": codes, "v_codes": codes.clone()}

    def attend(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory, place: Place) -> tuple[Tensor, Memory]:
        """See `Policy.attend`."""
        keys, values = torch.cat((memory["k"], k), dim=2), torch.cat((memory["v"], v), dim=2)
        old_k = unpack(memory["k_codes"], memory["k_low"], memory["k_step"], self.bits)
        old_v = unpack(memory["v_codes"], memory["v_low"], memory["v_step"], self.bits)
        out = read(q, torch.cat((old_k, keys), dim=2), torch.cat((old_v, values), dim=2), place.mask)
        return out, self._packed({**memory, "k": keys, "v": values})

    def step_quickly(self, step: Step, past: Sequence[Memory]) -> Sequence[Memory] | None:
        """See `Policy.step_quickly`."""
        if type(self).attend is not Quantised.attend or step.mask is not None:
            return None
        return tuple(map(self._packed, quantised_step(step, past, self.bits, self.group)))

    def _packed(self, memory: Memory) -> Memory:
        """With whole groups in few bits, once they are enough beside the recent ones."""
        keys, values, after = memory["k"], memory["v"], dict(memory)
        over = max(keys.shape[2] - self.recent, 0) // self.group * self.group
        if over:
            for name, new, span in (("k", keys[:, :, :over], self.group), ("v", values[:, :, :over], 1)):
                parts = pack(new, span, self.bits)
                for part, what in zip(("codes", "low", "step"), parts, strict=True):
                    after[f"{name}_{part}"] = append(memory[f"{name}_{part}"], what)
            after["k"], after["v"] = keys[:, :, over:].clone(), values[:, :, over:].clone()
        return after


def pack(x: Tensor, span: int, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (b, g, n, s bits / 8), low and step: of each channel over `span` > 1 tokens, or of each token if 1."""
    if span == 1:
        low, high = torch.aminmax(x, dim=-1, keepdim=True)
    else:
        low, high = torch.aminmax(x.unflatten(2, (-1, span)), dim=3)
    step = (high - low) / (2**bits - 1)
    return encode(x, low, step, bits), low, step


def encode(x: Tensor, low: Tensor, step: Tensor, bits: int) -> Tensor:
    """Codes (b, g, n, s bits / 8) of x; what lies outside the range gets its end."""
    codes = (x - _spread(low, x.shape[2])) / _spread(step, x.shape[2]).clamp_min(torch.finfo(x.dtype).tiny)
    codes = codes.round().clamp(0, 2**bits - 1).to(torch.uint8)
    if bits == 4:
        first, second = codes.chunk(2, dim=-1)
        codes = first | (second << 4)
    return codes


def unpack(codes: Tensor, low: Tensor, step: Tensor, bits: int) -> Tensor:
    """The numbers (b, g, n, s) that `pack` has kept."""
    if bits == 4:
        codes = torch.cat((codes & 15, codes >> 4), dim=-1)
    return codes.to(low.dtype) * _spread(step, codes.shape[2]) + _spread(low, codes.shape[2])


def _spread(x: Tensor, tokens: int) -> Tensor:
    """One a token, from one a group; one of all tokens stays as it is."""
    return x if x.shape[2] in (1, tokens) else x.repeat_interleave(tokens // x.shape[2], dim=2)


def full_budget(length: int) -> list[Policy]:
    """Settings at which it is full attention over `length` tokens."""
    return [Quantised(8, 3, length), Quantised(4, 2, length)]


def example() -> list[Policy]:
    """Small ones."""
    return [Quantised(8, 2, 3), Quantised(4, 4, 0)]
