"""A field made of mixers: velocities for continuous sequences, to be fitted by the family `flows`.

    h = W x + p + M(sin(w t), cos(w t))        (b, n, d): channels, place and time
    h = h + mixer(norm(h)), h + SwiGLU(norm(h))     layers 0, 2, ... read forwards, 1, 3, ... backwards
    v = V norm(h)                              (b, n, channels), 0 at the start

so that every place hears of every other from two layers on, whatever the mixers; a field of attention alone would not
know the order, hence the places p. Costs what the mixers cost.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paceline.blocks.rmsnorm import RMSNorm
from paceline.core.errors import PacelineError
from paceline.lm.config import mixer
from paceline.lm.decoder import Layer

WAVES = 16
"""Frequencies by which time is told, from a half turn to 500 over [0, 1]."""


class MixerField(nn.Module):
    """Velocities (b, length, channels) at points of that shape and times (b,).

    Args:
        channels: numbers at each place.
        length: places of a sequence, n.
        plan: the mixer of each layer, such as `seqboat(memory=32)`; two layers at least.
        d_model: width.
        hidden: width of the feed-forwards; 2 `d_model` where not given.

    Raises:
        PacelineError: a size is too small, there are fewer than two layers, or a mixer cannot be built.
    """

    def __init__(
        self,
        channels: int,
        length: int,
        plan: Sequence[str] = ("attention", "attention"),
        d_model: int = 64,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        if min(channels, length, d_model) < 1 or len(plan) < 2:
            raise PacelineError(
                f"A field of channels={channels}, length={length}, d_model={d_model} and {len(plan)} layers hears "
                "nothing: give sizes above 0 and two layers at least, of which one reads backwards."
            )
        self.channels, self.length = channels, length
        self.embed = nn.Linear(channels, d_model)
        self.places = nn.Parameter(torch.randn(length, d_model) * 0.02)
        self.time = nn.Sequential(nn.Linear(2 * WAVES, d_model), nn.SiLU(), nn.Linear(d_model, d_model))
        self.stack = nn.ModuleList(Layer(mixer(name, d_model), hidden or 2 * d_model) for name in plan)
        self.norm = RMSNorm(d_model)
        self.out = nn.Linear(d_model, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "b n c"], t: Float[Tensor, " b"]) -> Float[Tensor, "b n c"]:
        """Velocities at time t.

        Raises:
            PacelineError: another length, or other channels.
        """
        if x.shape[1:] != (self.length, self.channels):
            raise PacelineError(
                f"The field is for {self.length} places of {self.channels} channels, not for {tuple(x.shape[1:])}."
            )
        turns = torch.logspace(-0.3, 2.7, WAVES, device=x.device, dtype=x.dtype) * (2 * math.pi)
        angles = t[:, None] * turns
        h = self.embed(x) + self.places + self.time(torch.cat((angles.sin(), angles.cos()), 1))[:, None]
        for index, layer in enumerate(self.stack):
            h = layer(h.flip(1)).flip(1) if index % 2 else layer(h)
        out: Tensor = self.out(self.norm(h))
        return out
