"""What S4 and S4D share: a linear state-space model per channel, evaluated in chunks, and the layer around it.

A channel's state is s in R^N (n = N / 2 complex numbers, real parts before imaginary ones). A subclass gives what 64
tokens need, in float64 because it costs nothing per token: the kernel, the state's response, what inputs leave in the
state, and how a state moves on. Inside a chunk the kernel's Toeplitz matrix, between chunks the state.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.hints import hint
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._toeplitz import Dense, toeplitz

LOG_CHUNK = 6
CHUNK = 2**LOG_CHUNK

Part = Float[Tensor, "b t d"]
States = Float[Tensor, "b d N"]


@dataclass(frozen=True)
class Between:
    """What chunks pass on through the state."""

    leaving: Float[Tensor, "d c N"]
    """What a state adds to the outputs of the next tokens."""
    gains: Float[Tensor, "d N c"]
    """The state 0, 1, 2 .. tokens after an impulse."""
    carry: Callable[[Tensor, int], Tensor]
    """States (d, N, b) that many tokens later, 1 to 64, without input."""


class SSM(nn.Module, ABC):
    """y_t = sum_l K_l x_(t-l), channel by channel, (b, t, d) -> (b, t, d).

    Args:
        d_model: channels d.
        d_state: numbers N in a channel's state, even.
    """

    def __init__(self, d_model: int, d_state: int) -> None:
        super().__init__()
        self.d_model, self.d_state = d_model, d_state

    @abstractmethod
    def pieces(self, between: bool) -> tuple[Float[Tensor, "d c"], Between | None]:
        """The kernel's first 64 values, and what is needed between chunks if it is asked for."""

    @abstractmethod
    def step(self, x: Float[Tensor, "b d"], state: States) -> tuple[Float[Tensor, "b d"], States]:
        """One token in O(N)."""

    @abstractmethod
    def preparation(self, between: bool) -> Flops:
        """Operations of `pieces`."""

    def carried(self) -> float:
        """Products that move one sequence's state on by a chunk."""
        return 0.0

    def forward(self, x: Part) -> Part:
        """From an empty past."""
        return self._run(x, None)[0]

    def extend(self, x: Part, state: States) -> tuple[Part, States]:
        """The next tokens after the state, and the state after them."""
        if x.shape[1] == 1:
            y, after = self.step(x[:, 0].to(state.dtype), state)
            return y.unsqueeze(1).type_as(x), after
        return self._run(x, state)

    def empty(self, batch: int) -> States:
        """Zero, in single precision at least."""
        parameter = next(self.parameters())
        return torch.zeros(batch, self.d_model, self.d_state, dtype=working(parameter.dtype), device=parameter.device)

    def _run(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, length, width = x.shape
        chunk = min(CHUNK, length)
        chunks = -(-length // chunk)
        last = length - (chunks - 1) * chunk
        dtype = working(x.dtype)
        kernel, between = self.pieces(state is not None or chunks > 1)
        matrix = toeplitz(kernel[:, :chunk].to(dtype)).contiguous()
        padded = functional.pad(x.to(dtype), (0, 0, 0, chunks * chunk - length)).view(batch, chunks, chunk, width)
        columns = padded.permute(3, 2, 1, 0).flatten(2).contiguous()  # (d, c, chunks b): strided bmm is slow
        y = matrix @ columns
        after = x.new_zeros(0)
        if between is not None:
            gains, leaving = between.gains.to(dtype), between.leaving.to(dtype)
            start = x.new_zeros(width, self.d_state, batch, dtype=dtype) if state is None else state.permute(1, 2, 0)
            states = [start.contiguous()]
            if chunks > 1:
                left = Dense.apply(gains[..., :chunk].flip(-1) @ columns).unflatten(-1, (chunks, batch))
                for piece in left.unbind(2)[:-1]:  # over chunks, not tokens
                    states.append(between.carry(states[-1], chunk) + piece)
            entering = torch.stack(states, dim=2).flatten(2)
            y = y + leaving[:, :chunk] @ entering
            if state is not None:
                tail = gains[..., :last].flip(-1) @ padded[:, -1, :last].permute(2, 1, 0).contiguous()
                after = (between.carry(states[-1], last) + tail).permute(2, 0, 1).contiguous()
        y = Dense.apply(y).unflatten(-1, (chunks, batch)).permute(3, 2, 1, 0)
        return y.reshape(batch, chunks * chunk, width)[:, :length].type_as(x), after


class SSMLayer(Mixer):
    """z = GELU(SSM(x) + D x), y = a sigmoid(g) with (a, g) = W z + b: the layer of the authors' code."""

    def __init__(self, d_model: int, ssm: SSM) -> None:
        super().__init__()
        self.d_model, self.ssm = d_model, ssm
        self.skip = nn.Parameter(torch.randn(d_model))
        self.out = nn.Linear(d_model, 2 * d_model)
        self._length = 0

    def forward(self, x: Part) -> Part:
        """See `Mixer.forward`."""
        self._length = x.shape[1]
        return self.finish(x, self.ssm(x))

    def initial_state(self, batch: int) -> MixerState:
        """s = 0."""
        return {"s": self.ssm.empty(batch)}

    def extend(self, x: Part, state: MixerState) -> tuple[Part, MixerState]:
        """See `Mixer.extend`."""
        self._length = x.shape[1]
        y, after = self.ssm.extend(x, state["s"])
        return self.finish(x, y), {"s": after}

    def finish(self, x: Part, y: Part) -> Part:
        """All that follows the convolution y."""
        return functional.glu(self.out(functional.gelu(y + x * self.skip)), dim=-1)

    def state_bytes(self, batch: int, length: int) -> int:
        """d x N numbers in single precision at least, whatever the length."""
        return batch * self.d_model * self.ssm.d_state * working(self.out.weight.dtype).itemsize

    def flops(self, batch: int, length: int) -> Flops:
        """The chunked form, what prepares it, and the output map."""
        chunk = min(CHUNK, length)
        chunks = -(-length // chunk)
        ready = self.ssm.preparation(chunks > 1)
        through = 4.0 * self.ssm.d_state if chunks > 1 else 0.0
        inside = batch * chunks * chunk * self.d_model * (2.0 * chunk + through)
        carried = batch * (chunks - 1) * self.ssm.carried()
        return Flops(ready.products + inside + carried + 4.0 * batch * length * self.d_model**2, ready.other)

    @torch.no_grad()
    def meters(self) -> dict[str, float]:
        """`distant`: the kernel's energy beyond half of the last run's length, as a share, the channels' mean."""
        if not self._length:
            return {}
        impulse = torch.zeros_like(self.skip).expand(1, self._length, -1).clone()
        impulse[:, 0] = 1
        energy = self.ssm(impulse)[0].float().square()
        beyond = energy[(self._length + 1) // 2 :].sum(0) / energy.sum(0).clamp(min=torch.finfo(torch.float32).tiny)
        return {"distant": beyond.mean().item()}


def working(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the sums: the parameters', but single precision at least."""
    return torch.promote_types(dtype, torch.float32)


def to_real(z: Complex[Tensor, "*batch n"]) -> Float[Tensor, "*batch N"]:
    """Real parts, then imaginary parts."""
    return torch.cat((z.real, z.imag), dim=-1)


def to_complex(s: Float[Tensor, "*batch N"]) -> Complex[Tensor, "*batch n"]:
    """The inverse of `to_real`."""
    real, imaginary = s.chunk(2, dim=-1)
    return torch.complex(real, imaginary)


def stored(z: Complex[Tensor, "*shape"], channels: int) -> nn.Parameter:
    """A parameter (channels, *shape, 2) of real numbers that starts at z for every channel."""
    parameter = nn.Parameter(torch.empty(channels, *z.shape, 2))
    with torch.no_grad():
        parameter.copy_(torch.view_as_real(z).float())
    return parameter


def slow(parameter: nn.Parameter) -> nn.Parameter:
    """Hinted as the authors train what shapes the kernel: no weight decay, a tenth of the rate."""
    return hint(parameter, weight_decay=0.0, lr_scale=0.1)


def drawn_log_step(channels: int) -> nn.Parameter:
    """log dt, with dt log-uniform from 0.001 to 0.1 (the authors' range)."""
    low, high = torch.log(torch.tensor((0.001, 0.1), device="cpu")).tolist()
    return slow(nn.Parameter(torch.rand(channels) * (high - low) + low))


def drawn_output(channels: int, n: int) -> nn.Parameter:
    """C (d, n, 2), complex of unit variance; decayed like a weight matrix, as by the authors."""
    return nn.Parameter(torch.randn(channels, n, 2) * 0.5**0.5)
