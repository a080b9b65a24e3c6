"""Mamba: a selective state-space model (S6) between a short convolution and a gate.

    x, z   = W_in input                                    width e = expand d each
    x      = SiLU(conv(x))                                 causal, channel by channel, over d_conv tokens
    dt, B, C = W_x x                                       widths r, n, n
    delta  = softplus(W_dt dt + bias)
    h_t    = exp(delta_t A) * h_{t-1} + B_t (delta_t x_t)  A = -exp(A_log), h in R^(e x n)
    output = W_out ((C_t h_t + D x_t) * SiLU(z))

What a token writes, reads and forgets depends on the token: that is the selection. Start and names of the weights are
the authors', so theirs load here. Scan and convolution are in `_scan.py`. Half precision is scanned, and remembered,
in float32.
Time O(b t e (d + n)), linear in t. State: e (n + d_conv - 1) numbers a sequence.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.hints import hint
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._scan import gated_scan, short_convolution, wide

PAPERS = (
    Source(title="Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arxiv="2312.00752", year=2023),
)

STEPS = (1e-3, 1e-1)
"""Range of delta at the start, drawn evenly in its logarithm."""


class Mamba(Mixer):
    """The selective state-space model.

    Args:
        d_model: width d.
        d_state: dimensions n of each channel's state.
        d_conv: tokens that the convolution sees, itself included.
        expand: inner width e as a multiple of d.
        dt_rank: rank r of the step sizes. Default: d / 16, rounded up.

    Raises:
        PacelineError: a size is below 1.
    """

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, dt_rank: int | None = None
    ) -> None:
        super().__init__()
        rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        for name, size in {"d_state": d_state, "d_conv": d_conv, "expand": expand, "dt_rank": rank}.items():
            if size < 1:
                raise PacelineError(f"mamba: {name}={size} leaves nothing to compute with; give at least 1.")
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.inner, self.rank = expand * d_model, rank
        self.in_proj = nn.Linear(d_model, 2 * self.inner, bias=False)
        self.conv1d = nn.Conv1d(self.inner, self.inner, d_conv, groups=self.inner)
        self.x_proj = nn.Linear(self.inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, self.inner)
        self.out_proj = nn.Linear(self.inner, d_model, bias=False)
        low, high = (math.log(step) for step in STEPS)
        with torch.no_grad():
            nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
            delta = torch.exp(low + (high - low) * torch.rand(self.inner))
            self.dt_proj.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # softplus of it is delta
        rates = torch.arange(1.0, d_state + 1).expand(self.inner, d_state)
        self.A_log = hint(nn.Parameter(rates.log()), weight_decay=0.0)
        self.D = hint(nn.Parameter(torch.ones(self.inner)), weight_decay=0.0)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`."""
        return self.extend(x, self.initial_state(x.shape[0]))[0]

    def initial_state(self, batch: int) -> MixerState:
        """h = 0 (b, n, e), and zeros before the first token for the convolution."""
        weight = self.out_proj.weight
        return {
            "conv": weight.new_zeros(batch, self.d_conv - 1, self.inner),
            "h": weight.new_zeros(batch, self.d_state, self.inner, dtype=wide(weight.dtype)),
        }

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`."""
        inner, z = self.in_proj(x).chunk(2, dim=-1)
        before, weight, bias = state["conv"], self.conv1d.weight.squeeze(1).T, self.conv1d.bias
        assert bias is not None
        convolved = short_convolution(inner, before, weight, bias)
        delta, b_in, c_out = self._select(convolved)
        rates = -self.A_log.to(delta.dtype).exp().T
        y, h = gated_scan(delta, convolved, z, b_in, c_out, rates, self.D, state["h"])
        fresh = inner[:, max(0, x.shape[1] - before.shape[1]) :]
        tail = torch.cat((before[:, min(x.shape[1], before.shape[1]) :], fresh), dim=1)
        return self.out_proj(y), {"conv": tail, "h": h}

    def state_bytes(self, batch: int, length: int) -> int:
        """h, in float32 at least, and the inputs that the convolution still sees."""
        dtype = self.out_proj.weight.dtype
        return batch * self.inner * (self.d_state * wide(dtype).itemsize + (self.d_conv - 1) * dtype.itemsize)

    def flops(self, batch: int, length: int) -> Flops:
        """Projections; convolution, decays, recurrence and C h go channel by channel."""
        maps = (self.in_proj, self.x_proj, self.dt_proj, self.out_proj)
        weights = sum(part.weight.numel() for part in maps)
        return Flops(
            2.0 * batch * length * weights, batch * length * self.inner * (2.0 * self.d_conv + 7.0 * self.d_state)
        )

    def _select(self, inner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step sizes (..., e), input and output weights (..., n) of tokens (..., e), in the scan's dtype."""
        dt, b_in, c_out = self.x_proj(inner).to(wide(inner.dtype)).split((self.rank, self.d_state, self.d_state), -1)
        weight, bias = self.dt_proj.weight.type_as(dt), self.dt_proj.bias.type_as(dt)
        return functional.softplus(functional.linear(dt, weight, bias)), b_in, c_out


def naive_mamba(part: Mamba, x: Tensor) -> Tensor:
    """The recurrence, one token at a time."""
    inner, z = part.in_proj(x).chunk(2, dim=-1)
    padded = functional.pad(inner.transpose(1, 2), (part.d_conv - 1, 0))
    inner = functional.silu(part.conv1d(padded).transpose(1, 2))
    delta, b_in, c_out = part._select(inner)
    h, outputs = x.new_zeros(x.shape[0], part.inner, part.d_state), []
    for t in range(x.shape[1]):
        step = delta[:, t].unsqueeze(-1)
        h = torch.exp(-step * part.A_log.exp()) * h + step * b_in[:, t].unsqueeze(1) * inner[:, t].unsqueeze(-1)
        outputs.append((h @ c_out[:, t].unsqueeze(-1)).squeeze(-1))
    return part.out_proj((torch.stack(outputs, dim=1) + part.D * inner) * functional.silu(z))


def example() -> list[tuple[Mamba, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [(Mamba(8, d_state=3), naive_mamba), (Mamba(8, d_state=1, d_conv=1, expand=1, dt_rank=2), naive_mamba)]
