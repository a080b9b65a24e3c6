"""EMA with gated attention in fixed chunks: the chunking hybrid that SeqBoat is measured against.

SeqBoat's layer (mixers/seqboat.py) without the choice. For x in R^(b, t, d) and chunks of c tokens:

    H = SiLU(EMA(Norm(x))),  G = W_g H + b_g
    O = GAU(H): every token attends, to itself and the tokens before it in its own chunk
    y = SiLU(x + G + O)

Mega's plan (EMA, then a gated attention unit on chunks) in the layer of SeqBoat, so that only the choice of tokens
differs; Mega's own layer has an update gate in place of the branch G, and values from x.
Time O(b t d (n + d) + b t c (s + e)), linear in t. State: d n + (t mod c) (s + e) numbers a sequence.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._window import window_products, windowed_attention
from paceline.mixers.ema import DampedEMA, naive_damped_ema
from paceline.mixers.seqboat import GatedAttentionUnit

PAPERS = (Source(title="Mega: Moving Average Equipped Gated Attention", arxiv="2209.10655", year=2022),)


class ChunkHybrid(Mixer):
    """EMA with gated attention in fixed chunks, causal.

    Args:
        d_model: width d.
        chunk: c, tokens of a chunk.
        key_width: s, even. Default: d / 4, at least 16.
        value_width: e. Default: 2 d.
        dims: EMA dimensions n.

    Raises:
        PacelineError: a size is below 1, or the key width is odd.
    """

    is_layer = True

    def __init__(
        self,
        d_model: int,
        chunk: int = 64,
        key_width: int | None = None,
        value_width: int | None = None,
        dims: int = 16,
    ) -> None:
        super().__init__()
        key_width = max(16, d_model // 8 * 2) if key_width is None else key_width
        value_width = 2 * d_model if value_width is None else value_width
        if min(chunk, key_width, value_width) < 1:
            sizes = f"chunk={chunk}, key_width={key_width}, value_width={value_width}"
            raise PacelineError(f"chunk_hybrid: {sizes}: give each at least 1.")
        self.d_model, self.chunk = d_model, chunk
        self.norm = nn.LayerNorm(d_model)
        self.ema = DampedEMA(d_model, dims)
        self.branch = nn.Linear(d_model, d_model)
        self.unit = GatedAttentionUnit(d_model, key_width, value_width, chunk, squared_relu=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`. Includes the residual."""
        h = functional.silu(self.ema(self.norm(x)))
        start = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
        q, k, v, gate = self._project(h, start)
        return functional.silu(x + self.branch(h) + self.unit.outer(self._attend(q, k, v) * gate))

    def initial_state(self, batch: int) -> MixerState:
        """EMA at zero, no keys and values of a begun chunk, position 0."""
        weight, unit = self.branch.weight, self.unit
        return {
            "h": weight.new_zeros(batch, self.d_model, self.ema.dims),
            "k": weight.new_zeros(batch, 0, unit.key_width),
            "v": weight.new_zeros(batch, 0, unit.value_width),
            "position": torch.zeros(batch, dtype=torch.long, device=weight.device),
        }

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`."""
        ema, after = self.ema.extend(self.norm(x), state["h"])
        h = functional.silu(ema)
        q, k, v, gate = self._project(h, state["position"])
        begun = state["k"].shape[1]  # tokens of the current chunk that are past
        k, v = torch.cat((state["k"], k), dim=1), torch.cat((state["v"], v), dim=1)
        mixed = self._attend(functional.pad(q, (0, 0, begun, 0)), k, v)[:, begun:]
        y = functional.silu(x + self.branch(h) + self.unit.outer(mixed * gate))
        whole = k.shape[1] // self.chunk * self.chunk
        kept = {"k": k[:, whole:].clone(), "v": v[:, whole:].clone()}  # a view would keep the finished chunks in memory
        return y, {"h": after, **kept, "position": state["position"] + x.shape[1]}

    def state_bytes(self, batch: int, length: int) -> int:
        """EMA state, keys and values of the begun chunk, and the position."""
        numbers = self.d_model * self.ema.dims
        numbers += length % self.chunk * (self.unit.key_width + self.unit.value_width)
        return batch * (numbers * self.branch.weight.element_size() + 8)

    def flops(self, batch: int, length: int) -> Flops:
        """EMA, branch, projections, and whole squares of scores, chunk by chunk."""
        unit, chunk = self.unit, min(self.chunk, length)
        maps = self.branch.weight.numel() + unit.inner.weight.numel() + unit.outer.weight.numel()
        scores = window_products(batch * -(-length // chunk), chunk, chunk - 1, unit.key_width, unit.value_width)
        return Flops(self.ema.products(batch, length) + 2.0 * batch * length * maps + scores)

    def _project(self, h: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.unit.project(h, start.unsqueeze(1) + torch.arange(h.shape[1], device=h.device))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention inside chunks, from the beginning of a chunk on."""
        batch, length, _ = q.shape
        chunk = min(self.chunk, length)
        chunks = -(-length // chunk)

        def fold(rows: Tensor) -> Tensor:
            return functional.pad(rows, (0, 0, 0, chunks * chunk - length)).view(batch * chunks, chunk, -1)

        mixed = windowed_attention(fold(q), fold(k), fold(v), chunk - 1)
        return mixed.reshape(batch, chunks * chunk, -1)[:, :length]


def naive_chunk_hybrid(part: ChunkHybrid, x: Tensor) -> Tensor:
    """Token by token: each looks at the keys of its own chunk so far."""
    h = functional.silu(naive_damped_ema(part.ema, part.norm(x)))
    attended = []
    for position in range(x.shape[1]):
        first = position // part.chunk * part.chunk
        places = torch.arange(first, position + 1).expand(x.shape[0], -1)
        q, k, v, gate = part.unit.project(h[:, first : position + 1], places)
        scores = (q[:, -1:] @ k.transpose(1, 2)) * part.unit.key_width**-0.5
        attended.append(part.unit.outer((scores.softmax(dim=-1) @ v) * gate[:, -1:]))
    return functional.silu(x + part.branch(h) + torch.cat(attended, dim=1))


def example() -> list[tuple[ChunkHybrid, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [(ChunkHybrid(8, chunk=5, key_width=4, value_width=6, dims=3), naive_chunk_hybrid)]
