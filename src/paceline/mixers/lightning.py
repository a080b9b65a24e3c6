"""Lightning attention: causal linear attention with a fixed decay per head, in chunks.

    S_t = lambda S_{t-1} + k_t v_t^T,   o_t = q_t S_t,   y = W_o (g * RMSNorm(o))

with lambda_h = exp(-2^(-8 h / heads)), h = 1 .. heads, SiLU on q and k, and a sigmoid gate g from the input.
Inside a chunk of c tokens as (Q K^T * decay) V, between chunks through S.
Time O(b t d (c + s)), linear in t. State: heads x s x s numbers a sequence, s = d / heads.

Departure: no LRPE positions and no layer-wise schedule of the decay (they belong to TransNormerLLM).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._decay import decayed_attention, decayed_products, slab_by_slab

PAPERS = (
    Source(
        title="Lightning Attention-2: A Free Lunch for Handling Unlimited Sequence Lengths in Large Language Models",
        arxiv="2401.04658",
        year=2024,
    ),
)


class Lightning(Mixer):
    """Causal linear attention with decay.

    Args:
        d_model: width d, a multiple of `heads`.
        heads: heads, each with its own decay.

    Raises:
        PacelineError: the width is not a multiple of the heads.
    """

    def __init__(self, d_model: int, heads: int = 4) -> None:
        super().__init__()
        if heads < 1 or d_model % heads:
            raise PacelineError(f"lightning: the width {d_model} is not a multiple of heads={heads}.")
        self.d_model, self.heads, self.head_width = d_model, heads, d_model // heads
        self.qkvg = nn.Linear(d_model, 4 * d_model, bias=False)
        self.norm = nn.RMSNorm(d_model)
        self.out = nn.Linear(d_model, d_model, bias=False)

    @property
    def rate(self) -> Float[Tensor, " heads"]:
        """What each head loses a token, as a natural logarithm. Not a buffer: it would not be among the weights."""
        heads = torch.arange(1, self.heads + 1, device=self.out.weight.device)
        return torch.exp2(-8.0 * heads / self.heads).type_as(self.out.weight)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`."""
        return self.extend(x, self.initial_state(x.shape[0]))[0]

    def initial_state(self, batch: int) -> MixerState:
        """S = 0."""
        return {"s": self.out.weight.new_zeros(batch, self.heads, self.head_width, self.head_width)}

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`."""
        return slab_by_slab(self._slab, x, state)

    def state_bytes(self, batch: int, length: int) -> int:
        """heads x s x s numbers, whatever the length."""
        return batch * self.d_model * self.head_width * self.out.weight.element_size()

    def flops(self, batch: int, length: int) -> Flops:
        """Projections, the (c, c) products and the two through the state."""
        products = decayed_products(batch, self.heads, length, self.head_width, self.head_width)
        projections = 2.0 * batch * length * (self.qkvg.weight.numel() + self.out.weight.numel())
        return Flops(projections + products)

    def _slab(self, x: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        q, k, v, gate = self._project(x)
        mixed, s, _ = decayed_attention(q, k, v, self.rate, state["s"])
        return self._merge(mixed, gate), {"s": s}

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k, v, gate = self.qkvg(x).chunk(4, dim=-1)
        q, k, v = (z.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2) for z in (q, k, v))
        return functional.silu(q) * self.head_width**-0.5, functional.silu(k), v, gate

    def _merge(self, heads: Tensor, gate: Tensor) -> Tensor:
        return self.out(self.norm(heads.transpose(1, 2).flatten(2)) * gate.sigmoid())


def naive_lightning(part: Lightning, x: Tensor) -> Tensor:
    """The recurrence, one token at a time."""
    q, k, v, gate = part._project(x)
    s = x.new_zeros(x.shape[0], part.heads, part.head_width, part.head_width)
    outputs = []
    for t in range(x.shape[1]):
        s = torch.exp(-part.rate).view(-1, 1, 1) * s + k[:, :, t].unsqueeze(-1) * v[:, :, t].unsqueeze(-2)
        outputs.append((q[:, :, t].unsqueeze(-2) @ s).squeeze(-2))
    return part._merge(torch.stack(outputs, dim=2), gate)


def example() -> list[tuple[Lightning, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [(Lightning(8, heads=2), naive_lightning)]
