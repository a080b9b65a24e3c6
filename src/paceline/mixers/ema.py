"""Multi-dimensional damped exponential moving average (EMA), the diagonal state-space model of MEGA and SeqBoat.

Per channel and dimension, with p = sigmoid(delta) and q = 1 - p sigmoid(alpha), real numbers in (0, 1):

    h_t = q h_{t-1} + p beta x_t                  h in R^(d x n)
    y_t = n^(-1/2) sum_n gamma_n h_{t,n} + omega x_t

equivalently y = kernel * x + omega x with kernel_l = n^(-1/2) sum_n gamma_n p_n beta_n q_n^l.
Evaluated in chunks of c tokens as matrix products: inside a chunk by the kernel's (c, c) Toeplitz matrix, between
chunks through h. The paper uses an FFT over the whole length: the same numbers, 2.5 times slower at 4 x 2,048 x 256
(LOG.md).
Time O(b t d (c + n)), linear in t. State: d x n numbers a sequence.

As a mixer on its own it is followed by SiLU and a linear map, y = W SiLU(EMA(x)): what a SeqBoat layer does for a
token that it does not activate.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.core.hints import hint
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._toeplitz import Dense, toeplitz

SLAB = 4096
"""Tokens that are taken together."""

PAPERS = (Source(title="Mega: Moving Average Equipped Gated Attention", arxiv="2209.10655", year=2022),)


class DampedEMA(nn.Module):
    """The bare EMA, channel by channel, (b, t, d) -> (b, t, d).

    Args:
        d_model: channels d.
        dims: EMA dimensions n of each channel.
    """

    def __init__(self, d_model: int, dims: int = 16) -> None:
        super().__init__()
        if dims < 1:
            raise PacelineError(f"ema: dims={dims} leaves no state; give at least 1.")
        self.d_model, self.dims = d_model, dims
        sign = torch.ones(dims)
        sign[1::2] = -1.0  # the authors' start: dimensions that cancel each other, so that y starts small and sharp

        def draw(std: float, *shape: int) -> nn.Parameter:
            values = nn.init.trunc_normal_(torch.empty(shape), std=std, a=-2 * std, b=2 * std)
            return hint(nn.Parameter(values), weight_decay=0.0)

        self.delta, self.alpha = draw(0.2, d_model, dims), draw(0.2, d_model, dims)
        self.beta, self.gamma, self.omega = draw(0.02, d_model, dims), draw(1.0, d_model, dims), draw(1.0, d_model)
        with torch.no_grad():
            self.beta.add_(sign)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """From an empty past."""
        return self._run(x, None)[0]

    def extend(
        self, x: Float[Tensor, "b t d"], h: Float[Tensor, "b d n"]
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d n"]]:
        """The next tokens after the state h, and the state after them."""
        y, after = self._run(x, h)
        assert after is not None
        return y, after

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """log q, the input weights p beta and the output weights gamma / sqrt(n), each (d, n)."""
        p = self.delta.sigmoid()
        lost = (p * self.alpha.sigmoid()).clamp(max=1 - torch.finfo(p.dtype).eps)  # 1 - q; log q must stay finite
        return torch.log1p(-lost), p * self.beta, self.gamma * self.dims**-0.5

    def _run(self, x: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Slab by slab, so that a long sequence's intermediate results are still near when they are read."""
        chunk = _chunk(x.shape[1])
        weights = self._weights(chunk)
        if x.shape[1] <= SLAB:
            return self._slab(x, h, chunk, *weights)
        outputs = []
        h = x.new_zeros(x.shape[0], self.d_model, self.dims) if h is None else h
        for slab in x.split(SLAB, dim=1):
            y, h = self._slab(slab, h, chunk, *weights)
            outputs.append(y)
        return torch.cat(outputs, dim=1), h

    def _weights(self, chunk: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Powers of q (d, n, c + 1), the kernel's matrix (d, c, c), what each input leaves at a chunk's end (d, n, c)
        and what a state gives to each output (d, c, n)."""
        log_q, weights_in, weights_out = self.coefficients()
        powers = torch.exp(log_q.unsqueeze(-1) * torch.arange(chunk + 1, device=log_q.device))
        kernel = ((weights_in * weights_out).unsqueeze(-1) * powers[..., :chunk]).sum(dim=1)
        gains = (weights_in.unsqueeze(-1) * powers[..., :chunk]).flip(-1)
        leaving = (weights_out.unsqueeze(-1) * powers[..., 1:]).transpose(1, 2).contiguous()
        return powers, toeplitz(kernel).contiguous(), gains, leaving

    def _slab(
        self, x: Tensor, h: Tensor | None, chunk: int, powers: Tensor, matrix: Tensor, gains: Tensor, leaving: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        batch, length, width = x.shape
        chunks = -(-length // chunk)
        last = length - (chunks - 1) * chunk  # tokens in the last chunk
        padded = functional.pad(x, (0, 0, 0, chunks * chunk - length)).view(batch, chunks, chunk, width)
        columns = padded.permute(3, 2, 0, 1).flatten(2).contiguous()  # strided batches take a slow path of bmm
        y = matrix @ columns
        after = None
        if h is not None or chunks > 1:
            start = x.new_zeros(batch, width, self.dims) if h is None else h
            states = [start]
            if chunks > 1:
                left = (
                    Dense.apply(gains @ columns).unflatten(-1, (batch, chunks)).permute(3, 2, 0, 1)
                )  # (chunks, b, d, n)
                fading = powers[..., chunk]  # once: each indexing has a gradient as large as `powers`
                for piece in left.unbind()[:-1]:
                    states.append(torch.addcmul(piece, states[-1], fading))
            entering = torch.stack(states, dim=-1).permute(1, 2, 0, 3).flatten(2).contiguous()  # (d, n, b chunks)
            y = y + leaving @ entering
            if h is not None:
                tail = torch.einsum("bjd,dnj->bdn", padded[:, -1, :last], gains[..., chunk - last :])
                after = states[-1] * powers[..., last] + tail
        y = Dense.apply(y).unflatten(-1, (batch, chunks)).permute(2, 3, 1, 0)
        return y.reshape(batch, chunks * chunk, width)[:, :length] + x * self.omega, after

    def products(self, batch: int, length: int) -> float:
        """Forward operations in the matrix products of `forward`."""
        chunk = _chunk(length)
        chunks = -(-length // chunk)
        between = 4.0 * self.dims if chunks > 1 else 0.0
        return batch * chunks * chunk * self.d_model * (2.0 * chunk + between)


def _chunk(length: int) -> int:
    """Tokens of a chunk: all of a short sequence."""
    return length if length <= 64 else 32


class EMA(Mixer):
    """y = W SiLU(EMA(x)).

    Args:
        d_model: width d.
        dims: EMA dimensions n of each channel.
    """

    def __init__(self, d_model: int, dims: int = 16) -> None:
        super().__init__()
        self.d_model, self.dims = d_model, dims
        self.ema = DampedEMA(d_model, dims)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`."""
        return self.out(functional.silu(self.ema(x)))

    def initial_state(self, batch: int) -> MixerState:
        """h = 0."""
        return {"h": self.out.weight.new_zeros(batch, self.d_model, self.dims)}

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`."""
        y, h = self.ema.extend(x, state["h"])
        return self.out(functional.silu(y)), {"h": h}

    def state_bytes(self, batch: int, length: int) -> int:
        """d x n numbers, whatever the length."""
        return batch * self.d_model * self.dims * self.out.weight.element_size()

    def flops(self, batch: int, length: int) -> Flops:
        """The chunked form and the output map."""
        return Flops(self.ema.products(batch, length) + 2.0 * batch * length * self.d_model**2)


def naive_damped_ema(part: DampedEMA, x: Tensor) -> Tensor:
    """The recurrence, one token at a time."""
    log_q, weights_in, weights_out = part.coefficients()
    h = x.new_zeros(x.shape[0], *log_q.shape)
    outputs = []
    for token in x.unbind(1):
        h = log_q.exp() * h + weights_in * token.unsqueeze(-1)
        outputs.append((weights_out * h).sum(-1) + part.omega * token)
    return torch.stack(outputs, dim=1)


def naive_ema(part: EMA, x: Tensor) -> Tensor:
    """The mixer with the recurrence in it."""
    return part.out(functional.silu(naive_damped_ema(part.ema, x)))


def example() -> list[tuple[EMA, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [(EMA(8, dims=3), naive_ema)]
