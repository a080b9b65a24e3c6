"""Multi-scale retention (RetNet): linear attention whose heads forget at fixed rates of their own.

Per head h of H, with keys of s = d / H and values of e = r d / H numbers, gamma_h = 1 - 2^(-5-h), and R the rotation
of the pairs of a key by the angles theta_i = 10000^(-i / (s / 2 - 1)), i = 0 .. s / 2 - 1:

    S_n = gamma R^-1 S_{n-1} + s^(-1/2) k_n v_n^T     in R^(s x e)
    m_n = gamma m_{n-1} + 1                           a number
    o_n = RMSNorm(m_n^(-1/2) q_n^T S_n)
    y   = W_o (SiLU(W_g x) * [o^1 .. o^H])

equivalently o = RMSNorm((Q K^T * D) V) with D_nj = gamma^(n-j) m_n^(-1/2) for j <= n, else 0, and q and k turned by
their positions. Evaluated in chunks of c = 64 tokens: inside a chunk by that matrix, between chunks through S. S is
kept as seen from the next token, and positions count from the start of a slab of 2,048: no angle grows with the length.
Time O(b t d (c + r d / H)), linear in t. State: d r d / H + H numbers a sequence.

Departures: the paper's GroupNorm is an RMSNorm without weights, as in the authors' code. Their division of every row
by its own sum, at least 1 and without a gradient, is left out: the norm undoes it, but for its epsilon.
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.blocks.rotary import rotate
from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._decay import decayed_attention, decayed_products, slab_by_slab

PAPERS = (
    Paper(
        title="Retentive Network: A Successor to Transformer for Large Language Models",
        arxiv="2307.08621",
        year=2023,
        says="Retention models language as well as attention does, from a state that does not grow with the text.",
    ),
)


class RetNet(Mixer):
    """y = W_o (SiLU(W_g x) * RMSNorm(retention(x))).

    Args:
        d_model: width d.
        heads: H, each with a decay of its own; 2 H must divide d.
        expansion: width r d of all values over that of all keys.
    """

    def __init__(self, d_model: int, heads: int = 4, expansion: int = 2) -> None:
        super().__init__()
        if heads < 1 or d_model % (2 * heads):
            raise PacelineError(
                f"retnet: heads={heads} does not split d_model={d_model} into even widths; give another number."
            )
        if expansion < 1:
            raise PacelineError(f"retnet: expansion={expansion} leaves no values; give at least 1.")
        self.d_model, self.heads, self.expansion = d_model, heads, expansion
        self.key_width, self.value_width = d_model // heads, expansion * d_model // heads
        self.query, self.key = (nn.Linear(d_model, d_model, bias=False) for _ in range(2))
        self.value, self.gate = (nn.Linear(d_model, expansion * d_model, bias=False) for _ in range(2))
        self.out = nn.Linear(expansion * d_model, d_model, bias=False)
        self.norm = nn.RMSNorm(self.value_width, eps=1e-6, elementwise_affine=False)
        for linear in (self.query, self.key, self.value, self.gate):
            nn.init.xavier_uniform_(linear.weight, gain=2**-2.5)
        nn.init.xavier_uniform_(self.out.weight)
        self.lost = [2.0 ** -(5 + head) for head in range(heads)]  # 1 - gamma; numbers, exact in every dtype
        self._recalled: Tensor | None = None

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`."""
        return self.extend(x, self.initial_state(x.shape[0]))[0]

    def initial_state(self, batch: int) -> MixerState:
        """S = 0 and m = 0."""
        empty = self.out.weight.new_zeros
        return {"s": empty(batch, self.heads, self.key_width, self.value_width), "m": empty(batch, self.heads)}

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`."""
        return slab_by_slab(self._slab, x, state)

    def meters(self) -> dict[str, float]:
        """`recalled`: what the last chunk read from the state, as a share of its outputs' energy in the last run."""
        return {} if self._recalled is None else {"recalled": self._recalled.item()}

    def _slab(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """Positions count from the slab's start, and those of the state from its end."""
        q, k, v, rate = *self.projections(x), self.rate()
        length = x.shape[1]
        turns = self.turns(torch.arange(length + 1, device=x.device))
        o, s, through = decayed_attention(rotate(q, turns[:-1]), rotate(k, turns[:-1]), v, rate.to(q.dtype), state["s"])
        s = rotate(s.transpose(2, 3), turns[-1:].conj().resolve_conj()).transpose(2, 3)
        self._measure(through, o[:, :, -through.shape[2] :].detach() - through)
        ages = torch.arange(length + 1, device=x.device)
        powers = torch.exp(-rate.unsqueeze(-1) * ages)  # (heads, t + 1)
        m = powers[:, 1:] * state["m"].unsqueeze(-1) + powers[:, :-1].cumsum(-1)
        after = {"s": s, "m": m[..., -1].to(state["m"].dtype, copy=True)}  # a view would keep all of m alive
        return self.read(x, o * m.rsqrt().unsqueeze(-1).to(o.dtype)), after

    def _measure(self, through: Tensor, inside: Tensor) -> None:
        old, new = (part.float().square().sum() for part in (through, inside))
        self._recalled = old / (old + new).clamp(min=torch.finfo(torch.float32).tiny)

    def rate(self) -> Float[Tensor, " heads"]:
        """-log gamma."""
        weight = self.out.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return -torch.log1p(-torch.tensor(self.lost, device=weight.device, dtype=dtype))

    def turns(self, positions: Int[Tensor, " t"]) -> Complex[Tensor, "t pairs"]:
        """exp(i position theta) of every pair; angles in double precision, as they grow with the position."""
        device = positions.device
        theta = 10_000.0 ** -torch.linspace(0, 1, self.key_width // 2, device=device, dtype=torch.float64)
        angles = positions.unsqueeze(-1) * theta
        precision = torch.complex128 if self.out.weight.dtype == torch.float64 else torch.complex64
        return torch.polar(torch.ones_like(angles), angles).to(precision)

    def projections(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, scaled keys and values, each (b, heads, t, .)."""
        q, k, v = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.query, self.key, self.value))
        return q, k * self.key_width**-0.5, v

    def read(self, x: Tensor, o: Float[Tensor, "b heads t e"]) -> Float[Tensor, "b t d"]:
        """What becomes of the heads' outputs: norm, gate and output map."""
        return self.out(functional.silu(self.gate(x)) * self.norm(o).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def state_bytes(self, batch: int, length: int) -> int:
        """S and m, whatever the length."""
        return batch * self.heads * (self.key_width * self.value_width + 1) * self.out.weight.element_size()

    def flops(self, batch: int, length: int) -> Flops:
        """The five maps and the retention in chunks."""
        maps = 2.0 * batch * length * self.d_model**2 * (2 + 3 * self.expansion)
        return Flops(maps + decayed_products(batch, self.heads, length, self.key_width, self.value_width))


def naive_retnet(part: RetNet, x: Tensor) -> Tensor:
    """The parallel form: one matrix over the whole length, positions counted from the first token."""
    q, k, v = part.projections(x)
    steps = torch.arange(x.shape[1], device=x.device)
    turns = part.turns(steps)
    gamma = 1 - x.new_tensor(part.lost).view(-1, 1, 1)
    ages = steps.unsqueeze(1) - steps
    d = (gamma ** ages.clamp(min=0)).tril()
    d = d / d.sum(-1, keepdim=True).sqrt()
    return part.read(x, (rotate(q, turns) @ rotate(k, turns).transpose(2, 3) * d) @ v)


def example() -> list[tuple[RetNet, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [(RetNet(8, heads=2), naive_retnet), (RetNet(8, heads=1, expansion=1), naive_retnet)]
