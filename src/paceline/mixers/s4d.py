"""S4D: a state-space layer whose state matrix is diagonal and complex.

Per channel and n complex dimensions, with step dt, A_n = -exp(log_decay_n) + i frequency_n, zero-order hold:

    s_t = exp(dt A) s_{t-1} + (exp(dt A) - 1) / A x_t,   y_t = 2 Re(C s_t)

equivalently y = K * x with the Vandermonde product K_l = 2 Re sum_n C_n (exp(dt A_n) - 1) / A_n exp(dt A_n l).
The layer is GELU(y + D x), a linear map to 2 d and a gated linear unit. Starts: `lin`, A_n = -1/2 + i pi n, and `inv`,
A_n = -1/2 + i (N / pi) (N / (2 n + 1) - 1), both approximations of S4's.
Evaluated in chunks of 64 tokens as matrix products, between chunks through the state; the paper convolves by FFT over
the whole length, with the same numbers. Time O(b t d (64 + N + d)), linear in t. State: d x N real numbers a sequence.

B is 1 and part of C, as in the authors' minimal code. Departure: N = 32 by default, where the authors have 64.
"""

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.mixers._contract import Flops
from paceline.mixers._ssm import (
    CHUNK,
    SSM,
    Between,
    SSMLayer,
    drawn_log_step,
    drawn_output,
    slow,
    to_complex,
    to_real,
)

PAPERS = (
    Source(
        title="On the Parameterization and Initialization of Diagonal State Space Models",
        arxiv="2206.11893",
        year=2022,
    ),
)


class DiagonalSSM(SSM):
    """The convolution of S4D."""

    def __init__(self, d_model: int, d_state: int, init: str) -> None:
        super().__init__(d_model, d_state)
        order = torch.arange(d_state // 2)
        frequency = math.pi * order if init == "lin" else d_state / math.pi * (d_state / (2 * order + 1) - 1)
        self.log_step = drawn_log_step(d_model)
        self.log_decay = slow(nn.Parameter(torch.full((d_model, d_state // 2), math.log(0.5))))
        self.frequency = slow(nn.Parameter(frequency.float().repeat(d_model, 1)))
        self.c = drawn_output(d_model, d_state // 2)

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """dt A, the input weights (exp(dt A) - 1) / A and C, each (d, n) and complex in double precision."""
        a = torch.complex(-self.log_decay.double().exp(), self.frequency.double())
        turn = self.log_step.double().exp().unsqueeze(-1) * a
        inputs = 2 * torch.exp(turn / 2) * torch.sinh(turn / 2) / a  # exp(z) - 1 without cancellation
        return turn, inputs, torch.view_as_complex(self.c.double())

    def kernel(self, length: int) -> Tensor:
        """K (d, length), in double precision."""
        turn, inputs, c = self.coefficients()
        ages = torch.arange(length, device=turn.device)
        return 2 * ((c * inputs).unsqueeze(-1) * torch.exp(turn.unsqueeze(-1) * ages)).sum(1).real

    def pieces(self, between: bool) -> tuple[Tensor, Between | None]:
        """See `SSM.pieces`."""
        if not between:
            return self.kernel(CHUNK), None
        turn, inputs, c = self.coefficients()
        powers = torch.exp(turn.unsqueeze(1) * torch.arange(CHUNK + 1, device=turn.device).unsqueeze(-1))  # (d, c+1, n)
        gains = to_real(inputs.unsqueeze(1) * powers[:, :-1])
        outputs = to_real(2 * c.conj()).unsqueeze(1)

        @cache
        def factor(tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:  # each has a gradient as large as powers
            there = powers[:, tokens].unsqueeze(-1)
            return there.real.to(dtype), there.imag.to(dtype)

        def carry(states: Tensor, tokens: int) -> Tensor:
            real, imaginary = factor(tokens, states.dtype)
            x, y = states.chunk(2, dim=1)
            return torch.cat((real * x - imaginary * y, real * y + imaginary * x), dim=1)

        leaving = to_real(2 * (c.unsqueeze(1) * powers[:, 1:]).conj())
        return (gains * outputs).sum(-1), Between(leaving, gains.transpose(1, 2), carry)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `SSM.step`."""
        turn, inputs, c = (z.to(torch.complex(state[:0], state[:0]).dtype) for z in self.coefficients())
        after = turn.exp() * to_complex(state) + inputs * x.unsqueeze(-1)
        return 2 * (c * after).sum(-1).real, to_real(after)

    def preparation(self, between: bool) -> Flops:
        """Element by element: no products, some 20 operations for each power."""
        return Flops(0.0, 20.0 * self.d_model * CHUNK * self.d_state)


class S4D(SSMLayer):
    """The diagonal state-space layer.

    Args:
        d_model: width d.
        d_state: N, numbers in a channel's state: twice the complex dimensions.
        init: `lin` or `inv`, where the frequencies start.

    Raises:
        PacelineError: an odd or empty state, or an unknown start.
    """

    def __init__(self, d_model: int, d_state: int = 32, init: str = "lin") -> None:
        if d_state < 2 or d_state % 2:
            raise PacelineError(f"s4d: d_state={d_state} must be even and at least 2.")
        if init not in ("lin", "inv"):
            raise PacelineError(f"s4d: there is no init={init!r}; give 'lin' or 'inv'.")
        super().__init__(d_model, DiagonalSSM(d_model, d_state, init))


def naive_s4d(part: S4D, x: Tensor) -> Tensor:
    """The recurrence, one token at a time."""
    ssm = part.ssm
    assert isinstance(ssm, DiagonalSSM)
    a = torch.complex(-ssm.log_decay.double().exp(), ssm.frequency.double())
    q = torch.exp(ssm.log_step.double().exp().unsqueeze(-1) * a)
    kind = torch.complex128 if x.dtype == torch.float64 else torch.complex64
    q, inputs, c = q.to(kind), ((q - 1) / a).to(kind), torch.view_as_complex(ssm.c).to(kind)
    s = torch.zeros(x.shape[0], *q.shape, dtype=kind)
    outputs = []
    for token in x.unbind(1):
        s = q * s + inputs * token.unsqueeze(-1)
        outputs.append(2 * (c * s).real.sum(-1) + part.skip * token)
    return functional.glu(part.out(functional.gelu(torch.stack(outputs, dim=1))), dim=-1)


def example() -> list[tuple[S4D, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [(S4D(8, d_state=6), naive_s4d), (S4D(8, d_state=6, init="inv"), naive_s4d)]
