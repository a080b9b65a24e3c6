"""S4: a state-space layer whose state matrix is HiPPO-LegS, kept as normal plus low rank.

Per channel, with A = diag(Lambda) - P P^*, step dt and the bilinear transform, s in C^N in conjugate pairs:

    A' = (1 - dt A / 2)^-1 (1 + dt A / 2),   B' = (1 - dt A / 2)^-1 dt B,   s_t = A' s_{t-1} + B' x_t,   y_t = C s_t

equivalently y = K * x. K's generating function at the L-th roots of unity w needs no power of A' but A'^L: with
C~ = C (1 - A'^L), z = 2 (1 - w) / (1 + w) and the Cauchy sums k(u, v) = sum_n dt u_n v_n / (z - dt Lambda_n),

    K^(w) = 2 / (1 + w) (k(C~, B) - k(C~, P) k(P^*, B) / (1 + k(P^*, P)))      (Woodbury),   K = inverse FFT of K^

Lambda, P and B start as LegS in the basis that makes its normal part diagonal, half of each pair kept; the real part of
Lambda stays negative, so A' is a contraction. The layer is GELU(y + D x), a linear map to 2 d and a gated linear unit.
Evaluated in chunks of 64 tokens: inside by K's Toeplitz matrix, between through the state, with powers of the dense A';
a single token by the diagonal and the rank-one part alone. The paper convolves by FFT over the whole length, the same
numbers. Time O(b t d (64 + N + N^2 / 64 + d) + d N^3), linear in t. State: d x N real numbers a sequence.

Departures: the parameter is C, not C~, so that one layer serves every length; B's imaginary part is not clipped at the
start as in the authors' code; N = 32 by default, where the authors have 64.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.mixers._contract import Flops
from paceline.mixers._ssm import (
    CHUNK,
    LOG_CHUNK,
    SSM,
    Between,
    SSMLayer,
    drawn_log_step,
    drawn_output,
    slow,
    stored,
    to_complex,
    to_real,
)

PAPERS = (
    Paper(
        title="Efficiently Modeling Long Sequences with Structured State Spaces",
        arxiv="2111.00396",
        year=2021,
        says="A state-space layer with the HiPPO matrix keeps what lies far back, where the same layer with a random "
        "matrix and plain recurrences do not.",
    ),
)

LARGEST = 512
"""Numbers in a state: the work of preparing a kernel grows with their cube."""


@dataclass(frozen=True)
class System:
    """One state-space model per channel, half of each conjugate pair, each (d, n) and complex in double precision."""

    turn: Tensor
    """dt Lambda."""
    p: Tensor
    """sqrt(dt) P."""
    b: Tensor
    """dt B."""
    c: Tensor
    """C."""

    def resolve(self, s: Tensor) -> Tensor:
        """(1 - dt A / 2)^-1 s, by Woodbury: for half of the pairs P P^* s is 2 P Re(P^* s)."""
        diagonal = 1 / (1 - self.turn / 2)
        weights = self.p.conj() * diagonal
        share = (weights * s).sum(-1, keepdim=True).real / (1 + (weights * self.p).sum(-1, keepdim=True).real)
        return diagonal * (s - self.p * share)

    def advance(self, s: Tensor) -> Tensor:
        """A' s."""
        return self.resolve(s + self.turn * s / 2 - self.p * (self.p.conj() * s).sum(-1, keepdim=True).real)

    def transition(self) -> Tensor:
        """A' (d, N, N) on real and imaginary parts."""
        basis = to_complex(torch.eye(2 * self.c.shape[1], dtype=torch.float64, device=self.c.device)).unsqueeze(1)
        return to_real(self.advance(basis)).permute(1, 2, 0).contiguous()

    def row(self) -> Tensor:
        """C (d, 1, N) on real and imaginary parts."""
        return to_real(2 * self.c.conj()).unsqueeze(1)

    def cauchy(self, row: Tensor, length: int) -> Tensor:
        """K (d, length) from C~ as a row: Cauchy sums, Woodbury, inverse FFT.

        Both sides are multiplied by (1 + w) exp(i angle / 2), so that w = -1 is a node like the others.
        """
        c = to_complex(row.squeeze(1)).conj() / 2
        half = math.pi * torch.arange(length // 2 + 1, dtype=torch.float64, device=row.device) / length
        cos = half.cos()
        weights = torch.stack((c * self.b, c * self.p, self.p.conj() * self.b, self.p.conj() * self.p), dim=1)
        poles = torch.cat((self.turn, self.turn.conj()), dim=-1).unsqueeze(-1)
        resolvents = 1 / (torch.complex(torch.zeros_like(half), 4 * half.sin()) - 2 * cos * poles)  # (d, N, nodes)
        sums = torch.cat((weights, weights.conj()), dim=-1) @ resolvents
        cb, cp, pb, pp = sums.unbind(1)
        spectrum = 2 * torch.polar(torch.ones_like(half), half) * (cb - 2 * cos * cp * pb / (1 + 2 * cos * pp))
        return torch.fft.irfft(spectrum, n=length)


class NPLR(SSM):
    """The convolution of S4."""

    def __init__(self, d_model: int, d_state: int) -> None:
        super().__init__(d_model, d_state)
        eigenvalues, p, b = legs(d_state)
        self.log_step = drawn_log_step(d_model)
        self.log_decay = slow(nn.Parameter(torch.empty(d_model, d_state // 2)))
        self.frequency = slow(nn.Parameter(torch.empty(d_model, d_state // 2)))
        with torch.no_grad():
            self.log_decay.copy_((-eigenvalues.real).log())
            self.frequency.copy_(-eigenvalues.imag)
        self.p, self.b = slow(stored(p, d_model)), slow(stored(b, d_model))
        self.c = drawn_output(d_model, d_state // 2)

    def coefficients(self) -> "System":
        """The parameters with the step in them, in double precision."""
        dt = self.log_step.double().exp().unsqueeze(-1)
        eigenvalues = torch.complex(-self.log_decay.double().exp(), -self.frequency.double())
        p, b, c = (torch.view_as_complex(z.double()) for z in (self.p, self.b, self.c))
        return System(dt * eigenvalues, dt.sqrt() * p, dt * b, c)

    def kernel(self, length: int) -> Tensor:
        """K (d, length) in double precision, by the generating function at as many roots of unity."""
        length_used = max(length, CHUNK)  # of fewer tokens, C~ would be nearly nothing, and mostly rounding
        system = self.coefficients()
        row, power, rest = system.row(), system.transition(), length_used
        turned = row
        while rest:
            turned = turned @ power if rest % 2 else turned
            rest //= 2
            power = power @ power if rest else power
        return system.cauchy(row - turned, length_used)[:, :length]

    def pieces(self, between: bool) -> tuple[Tensor, Between | None]:
        """See `SSM.pieces`."""
        system = self.coefficients()
        squares, row = [system.transition()], system.row()
        for _ in range(LOG_CHUNK):
            squares.append(squares[-1] @ squares[-1])
        kernel = system.cauchy(row - row @ squares[-1], CHUNK)
        if not between:
            return kernel, None
        columns, leaving = to_real(system.resolve(system.b)).unsqueeze(-1), row @ squares[0]
        for power in squares[:-1]:
            columns = torch.cat((columns, power @ columns), dim=-1)
            leaving = torch.cat((leaving, leaving @ power), dim=1)

        def carry(states: Tensor, tokens: int) -> Tensor:
            for bit, power in enumerate(squares):
                if tokens >> bit & 1:
                    states = power.to(states.dtype) @ states
            return states

        return kernel, Between(leaving, columns, carry)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See `SSM.step`."""
        system, before = self.coefficients(), to_complex(state)
        after = system.advance(before.to(system.b.dtype)) + system.resolve(system.b) * x.unsqueeze(-1)
        return 2 * (system.c * after).sum(-1).real.type_as(x), to_real(after).type_as(state)

    def preparation(self, between: bool) -> Flops:
        """Squares of the transition, one row through the last, doubling what leaves and enters, Cauchy sums."""
        square = 2.0 * self.d_model * self.d_state**2
        rows = 1 + (2 * (CHUNK - 1) + 1 if between else 0)
        cauchy = self.d_model * self.d_state * (CHUNK / 2 + 1)  # complex: counted as torch does, the rest beside it
        return Flops(square * (LOG_CHUNK * self.d_state + rows) + 8 * cauchy, (3 * 8 + 20) * cauchy)

    def carried(self) -> float:
        """Products that move one sequence's state on by a chunk."""
        return 2.0 * self.d_model * self.d_state**2


@functools.cache  # a model's size is found by building it many times
def legs(d_state: int) -> tuple[Tensor, Tensor, Tensor]:
    """HiPPO-LegS as diag(Lambda) - P P^* and B, each (N / 2,) and complex: one of each conjugate pair.

    A_ij = -sqrt((2 i + 1)(2 j + 1)) below the diagonal, -(i + 1) on it; A + p p^T, p_i = sqrt(i + 1/2), is -1/2 plus a
    skew-symmetric matrix; B_i = sqrt(2 i + 1).
    """
    order = torch.arange(d_state, dtype=torch.float64, device="cpu")
    root = (2 * order + 1).sqrt()
    skew = -torch.outer(root, root) / 2
    skew = skew.tril(-1) - skew.tril(-1).T
    values, vectors = torch.linalg.eigh(-1j * skew)  # ascending: the first half is negative
    basis = vectors[:, : d_state // 2].conj().T
    eigenvalues = torch.complex(torch.full_like(values, -0.5), values)[: d_state // 2]
    return eigenvalues, basis @ (root / math.sqrt(2)).to(basis.dtype), basis @ root.to(basis.dtype)


class S4(SSMLayer):
    """The structured state-space layer.

    Args:
        d_model: width d.
        d_state: N, numbers in a channel's state, even.

    Raises:
        PacelineError: an odd or empty state.
    """

    def __init__(self, d_model: int, d_state: int = 32) -> None:
        if not 2 <= d_state <= LARGEST or d_state % 2:
            raise PacelineError(f"s4: d_state={d_state} must be even, at least 2 and at most {LARGEST}.")
        super().__init__(d_model, NPLR(d_model, d_state))


def naive_s4(part: S4, x: Tensor) -> Tensor:
    """Dense matrices discretised by a solver, and the recurrence, one token at a time."""
    ssm = part.ssm
    assert isinstance(ssm, NPLR)
    half = [torch.complex(-ssm.log_decay.double().exp(), -ssm.frequency.double())]
    half += [torch.view_as_complex(z.double()) for z in (ssm.p, ssm.b, ssm.c)]
    eigenvalues, p, b, c = (torch.cat((z, z.conj()), dim=-1) for z in half)
    dt = ssm.log_step.double().exp().view(-1, 1, 1)
    a = torch.diag_embed(eigenvalues) - p.unsqueeze(-1) * p.conj().unsqueeze(-2)
    one = torch.eye(a.shape[-1], dtype=torch.float64)
    kind = torch.complex128 if x.dtype == torch.float64 else torch.complex64
    transition = torch.linalg.solve(one - dt / 2 * a, one + dt / 2 * a).to(kind)
    inputs = torch.linalg.solve(one - dt / 2 * a, dt * b.unsqueeze(-1)).squeeze(-1).to(kind)
    s = torch.zeros(x.shape[0], *b.shape, dtype=kind)
    outputs = []
    for token in x.unbind(1):
        s = (transition @ s.unsqueeze(-1)).squeeze(-1) + inputs * token.unsqueeze(-1)
        outputs.append((c.to(kind) * s).sum(-1).real + part.skip * token)
    return functional.glu(part.out(functional.gelu(torch.stack(outputs, dim=1))), dim=-1)


def example() -> list[tuple[S4, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [(S4(8, d_state=6), naive_s4)]
