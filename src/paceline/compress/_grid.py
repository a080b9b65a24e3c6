"""Numbers on a grid of few bits, and codes of 4 bits two to a byte.

    weights      w' = s clamp(round(w / s)),   s = p max|w| / (2^(b-1) - 1) an output, or a group of inputs of it
    activations  x' = s (clamp(round(x / s) + z) - z),   s = (high - low) / (2^b - 1),   z = round(-low / s)

`high` and `low` are of a token, or of a group of its numbers, and 0 is between them; gradients pass straight through.
p is 1, or the shrinkage of a grid down to 0.2 for which sum |w' - w|^2.4 of the output is least.
"""

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

POWER = 2.4
"""Of the error that a clipped scale makes least."""
SHRUNK = 0.8
"""How much of a scale may be clipped away."""
LEAST = 1e-5
"""Of a largest weight, so that nothing is divided by 0."""


def weight_scale(w: Float[Tensor, "o i"], bits: int, group: int = 0, clip: int = 0) -> Float[Tensor, "o g"]:
    """The scale of each output, or of each `group` inputs of it; `clip` shrinkages are tried where it is not 0."""
    parts = w.unflatten(1, (-1, group or w.shape[1]))
    full = parts.abs().amax(2).clamp_min(LEAST) / (2 ** (bits - 1) - 1)
    best, least = full, torch.full_like(full, torch.inf)
    for number in range(clip):
        scale = full * (1 - SHRUNK * number / clip)
        step = scale.unsqueeze(2)
        error = torch.linalg.vector_norm(rounded(parts, step, bits) * step - parts, POWER, dim=2)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def rounded(w: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The whole numbers of the grid, as floats; `scale` broadcasts."""
    top = 2 ** (bits - 1) - 1
    return (w / scale).round_().clamp_(-top - 1, top)


def encode(w: Float[Tensor, "o i"], scale: Float[Tensor, "o g"], bits: int) -> Int8[Tensor, "o i"]:
    """The codes of weights."""
    return rounded(w.unflatten(1, (scale.shape[1], -1)), scale.unsqueeze(2), bits).flatten(1).to(torch.int8)


def parameters(x: Float[Tensor, "*b i"], bits: int) -> tuple[Float[Tensor, "*b 1"], Float[Tensor, "*b 1"]]:
    """Step and zero of each row's asymmetric grid."""
    low, high = torch.aminmax(x, dim=-1, keepdim=True)
    low, high = low.clamp_max(0), high.clamp_min(0)
    step = (high - low) / (2**bits - 1)
    step = torch.where(step > 0, step, torch.full_like(step, 2 / (2**bits - 1)))  # a row of zeros: from -1 to 1
    return step, (-low / step).round()


def codes(x: Float[Tensor, "*b i"], step: Tensor, zero: Tensor, bits: int) -> Float[Tensor, "*b i"]:
    """The whole numbers 0 to 2^bits - 1 of each row's grid."""
    return ((x / step).round_() + zero).clamp_(0, 2**bits - 1)


def on_grid(x: Float[Tensor, "*b i"], bits: int, group: int = 0) -> Float[Tensor, "*b i"]:
    """Activations on the grid of each token, or of each `group` of its numbers; 16 bits change nothing."""
    if bits >= 16:
        return x
    parts = x.detach().unflatten(-1, (-1, group or x.shape[-1]))
    step, zero = parameters(parts, bits)
    near = ((codes(parts, step, zero, bits) - zero) * step).flatten(-2)
    return near if not x.requires_grad else x + (near - x.detach())


def pack(values: UInt8[Tensor, "*b i"]) -> UInt8[Tensor, "*b j"]:
    """Numbers 0 to 15, two to a byte: those of the first half of a row in the low bits; j = ceil(i / 2)."""
    if values.shape[-1] % 2:
        values = torch.nn.functional.pad(values, (0, 1))
    low, high = values.chunk(2, dim=-1)
    return low | (high << 4)


def unpack(packed: UInt8[Tensor, "*b j"], width: int) -> UInt8[Tensor, "*b i"]:
    """What `pack` has packed, `width` numbers a row."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)[..., :width]
