"""TransNormerLLM's mixer: gated linear attention with LRPE-d positions, a decay per head and layer, and a simple norm.

For heads of width s, with q, k through SiLU and a linear gate g:

    S_t = lambda S_{t-1} + k'_t v_t^T,   o_t = q'_t S_t,   y = W_o (g * SRMSNorm(o)),   SRMSNorm(o) = sqrt(d) o / |o|
    q'_t = [q_t cos(theta t), q_t sin(theta t)], and k' alike, so that  q'_t k'_j = sum q_t k_j cos(theta (t - j))

lambda_h = exp(-slope_h (1 - depth + 1e-5)), slope_h = 2^(-8 h / heads) as in ALiBi, depth = l / (L - 1) for layer l of
L: the last layer forgets nothing. theta is learned, from 10000^(-2 i / d). In the paper the first layer alone has LRPE;
`positions` says whether this one has.
In chunks of 64 tokens: inside as (Q' K'^T * decay) V, between chunks through S. Time O(b t d (64 + s)), linear in t.
State: heads x 2 s x s numbers a sequence, with positions.

Every exponent is an age, so there is no lambda^-t to overflow. Positions count from the start of a slab of 2,048
tokens, and S is turned back from slab to slab: no angle grows with the length, and none is rounded at a large one.

Formulas and constants are those of the authors' published code. Departure: theta learns at a tenth of the rate. The
channel mixer and the norms around belong to the decoder.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.hints import hint
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._decay import CHUNK, decayed_attention, decayed_products, slab_by_slab

PAPERS = (
    Paper(
        title="Scaling TransNormer to 175 Billion Parameters",
        arxiv="2307.14995",
        year=2023,
        says="Linear attention with decaying positions, gating and a simple norm outperforms softmax attention.",
    ),
)


class TransNormer(Mixer):
    """Gated linear attention with LRPE-d.

    Args:
        d_model: width d, a multiple of `heads`.
        heads: heads, each with its own decay.
        depth: how deep the layer lies, 0 for the first and 1 for the last; the decay fades with it.
        positions: whether queries and keys are turned by LRPE.

    Raises:
        PacelineError: the width is not a multiple of the heads, or the depth is not in 0 .. 1.
    """

    def __init__(self, d_model: int, heads: int = 4, depth: float = 0.0, positions: bool = True) -> None:
        super().__init__()
        if heads < 1 or d_model % heads:
            raise PacelineError(f"transnormer: the width {d_model} is not a multiple of heads={heads}.")
        if not 0 <= depth <= 1:
            raise PacelineError(f"transnormer: depth={depth} must be between 0, the first layer, and 1, the last.")
        self.d_model, self.heads, self.head_width, self.depth = d_model, heads, d_model // heads, depth
        self.qkvg = nn.Linear(d_model, 4 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        theta = 10_000 ** (-2 / d_model * torch.arange(d_model).view(heads, -1))
        self.theta = hint(nn.Parameter(theta), weight_decay=0.0, lr_scale=0.1) if positions else None
        self._through: Tensor | None = None

    @property
    def rate(self) -> Float[Tensor, " heads"]:
        """What each head loses a token, as a natural logarithm."""
        fading = 1 - self.depth + 1e-5
        return self.out.weight.new_tensor([slope * fading for slope in slopes(self.heads)])

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`."""
        return self.extend(x, self.initial_state(x.shape[0]))[0]

    def initial_state(self, batch: int) -> MixerState:
        """S = 0, with positions counted from the next token."""
        return {"s": self.out.weight.new_zeros(batch, self.heads, self._key_width, self.head_width)}

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`."""
        return slab_by_slab(self._slab, x, state)

    def _slab(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        q, k, v, gate = self._project(x)
        if self.theta is None:
            mixed, s, through = decayed_attention(q, k, v, self.rate, state["s"])
        else:
            turns = self._turns(x.shape[1])
            q, k = _Turn.apply(q, *turns), _Turn.apply(k, *turns)
            mixed, s, through = decayed_attention(q, k, v, self.rate, state["s"])
            s = self._moved(s, x.shape[1])
        self._measure(mixed, through)
        return self._merge(mixed, gate), {"s": s}

    def state_bytes(self, batch: int, length: int) -> int:
        """heads x 2 s x s numbers with positions, half without, whatever the length."""
        return batch * self.d_model * self._key_width * self.out.weight.element_size()

    def flops(self, batch: int, length: int) -> Flops:
        """Projections, the (c, c) products and the two through the state."""
        products = decayed_products(batch, self.heads, length, self._key_width, self.head_width)
        projections = 2.0 * batch * length * (self.qkvg.weight.numel() + self.out.weight.numel())
        return Flops(projections + products)

    def meters(self) -> dict[str, float]:
        """`recalled`: what came from before the last chunk of 64, as a share of its outputs' energy in the last run."""
        return {} if self._through is None else {"recalled": self._through.item()}

    @property
    def _key_width(self) -> int:
        return self.head_width if self.theta is None else 2 * self.head_width

    @torch.no_grad()
    def _measure(self, mixed: Tensor, through: Tensor) -> None:
        old, all_ = through.float(), mixed[:, :, -through.shape[2] :].float()
        energy = old.square().sum(), (all_ - old).square().sum()
        self._through = energy[0] / (energy[0] + energy[1]).clamp(min=torch.finfo(torch.float32).tiny)

    def _turns(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine (heads, t, s) of positions from the slab's start: those of chunks times those inside one."""
        assert self.theta is not None
        chunk = min(CHUNK, length)
        steps = torch.arange(max(chunk, -(-length // chunk)), device=self.theta.device, dtype=torch.float64)
        theta = self.theta.double().unsqueeze(1)
        near, far = theta * steps[:chunk, None], theta * chunk * steps[: -(-length // chunk), None]
        (a, b), (c, d) = ((x.cos().type_as(self.theta), x.sin().type_as(self.theta)) for x in (near, far))
        a, b, c, d = a.unsqueeze(1), b.unsqueeze(1), c.unsqueeze(2), d.unsqueeze(2)
        cos, sin = (x.flatten(1, 2)[:, :length] for x in (c * a - d * b, d * a + c * b))
        return cos, sin

    def _moved(self, s: Tensor, tokens: int) -> Tensor:
        """The state with positions counted from so many tokens later."""
        assert self.theta is not None
        angles = (self.theta.double() * tokens).unsqueeze(-1)
        cos, sin = angles.cos().type_as(s), angles.sin().type_as(s)
        x, y = s.chunk(2, dim=2)
        return torch.cat((cos * x + sin * y, cos * y - sin * x), dim=2)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k, v, gate = self.qkvg(x).chunk(4, dim=-1)
        q, k, v = (z.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2) for z in (q, k, v))
        return functional.silu(q), functional.silu(k), v, gate

    def _merge(self, heads: Tensor, gate: Tensor) -> Tensor:
        return self.out(functional.rms_norm(heads.transpose(1, 2).flatten(2), (self.d_model,), eps=1e-6) * gate)


def slopes(heads: int) -> list[float]:
    """2^(-8 h / heads), h = 1 .. heads; where heads is no power of two, filled up from those of the next one."""
    below = 1 << heads.bit_length() - 1
    return [2 ** (-8 * h / below) for h in range(1, below + 1)] + [
        2 ** (-4 * h / below) for h in range(1, 2 * (heads - below), 2)
    ]


class _Turn(torch.autograd.Function):
    """[z cos, z sin], (b, heads, t, s) -> (b, heads, t, 2 s), written once."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Of (heads, t, s) each."""
        ctx.save_for_backward(z, cos, sin)
        out = z.new_empty(*z.shape[:-1], 2 * z.shape[-1])
        for half, turn in zip(out.chunk(2, dim=-1), (cos, sin), strict=True):
            torch.mul(z, turn, out=half)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """To z, cosine and sine."""
        z, cos, sin = ctx.saved_tensors
        to_cos, to_sin = gradient.chunk(2, dim=-1)
        return (to_cos * cos).addcmul_(to_sin, sin), (to_cos * z).sum(dim=0), (to_sin * z).sum(dim=0)


def naive_transnormer(part: TransNormer, x: Tensor) -> Tensor:
    """The recurrence, one token at a time, with positions from the sequence's start."""
    q, k, v, gate = part._project(x)
    s = x.new_zeros(x.shape[0], part.heads, part._key_width, part.head_width)
    outputs = []
    for t in range(x.shape[1]):
        qt, kt = q[:, :, t], k[:, :, t]
        if part.theta is not None:
            turns = (part.theta * t).cos(), (part.theta * t).sin()
            qt, kt = (torch.cat((z * turns[0], z * turns[1]), dim=-1) for z in (qt, kt))
        s = torch.exp(-part.rate).view(-1, 1, 1) * s + kt.unsqueeze(-1) * v[:, :, t].unsqueeze(-2)
        outputs.append((qt.unsqueeze(-2) @ s).squeeze(-2))
    return part._merge(torch.stack(outputs, dim=2), gate)


def example() -> list[tuple[TransNormer, object]]:
    """Instances for the contract tests, each with its naive twin."""
    plain = TransNormer(8, heads=2, depth=0.5, positions=False)
    return [(TransNormer(8, heads=2), naive_transnormer), (plain, naive_transnormer)]
