"""Softmax attention: multi-head, grouped or multi-query, rotary, over everything or a sliding window.

    o_i = sum_j softmax_j(q_i . k_j / sqrt(s)) v_j,   j <= i, and j > i - window where a window is given

with `heads` queries and `kv_heads` keys and values of width s = d / heads; over every j with `causal=False`.
Time O(t^2 d), or O(t window d) with a window (blocked matrix products). State: 2 x kv_heads x s x min(t, window - 1)
numbers a sequence.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.blocks.rotary import Rotary, rotate
from paceline.core.card import Paper, Source
from paceline.core.errors import PacelineError
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._window import naive_windowed_attention, window_products, windowed_attention

PAPERS = (
    Source(title="Attention Is All You Need", arxiv="1706.03762", year=2017),
    Paper(
        title="Fast Transformer Decoding: One Write-Head is All You Need",
        arxiv="1911.02150",
        year=2019,
        says="one key and value head for all queries is far less to keep and to read, and hardly worse",
    ),
    Source(title="GQA: Training Generalized Multi-Query Transformer Models", arxiv="2305.13245", year=2023),
    Source(title="Longformer: The Long-Document Transformer", arxiv="2004.05150", year=2020, says="sliding window"),
)


class Attention(Mixer):
    """Causal softmax attention.

    Args:
        d_model: width d, a multiple of `heads`.
        heads: query heads.
        kv_heads: key and value heads, a divisor of `heads`; 1 is multi-query attention. Default: `heads`.
        window: how many tokens a query sees, itself included. Default: all.
        rotary: turn queries and keys by their positions; without it the part knows order by causality only.
        causal: whether a token sees the earlier ones only; False is for encoders, without a window.

    Raises:
        PacelineError: the sizes do not divide, or the window is below 1, or both ways.
    """

    def __init__(
        self,
        d_model: int,
        heads: int = 4,
        kv_heads: int | None = None,
        window: int | None = None,
        rotary: bool = True,
        causal: bool = True,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or d_model % heads:
            raise PacelineError(f"attention: the width {d_model} is not a multiple of heads={heads}.")
        if kv_heads < 1 or heads % kv_heads:
            raise PacelineError(f"attention: heads={heads} is not a multiple of kv_heads={kv_heads}.")
        if window is not None and window < 1:
            raise PacelineError(f"attention: window={window} sees nothing; give at least 1, or leave it out.")
        if window is not None and not causal:
            raise PacelineError("attention: a window is of earlier tokens; leave it out, or leave causal=False out.")
        self.d_model, self.heads, self.kv_heads, self.window = d_model, heads, kv_heads, window
        self.causal = causal
        self.head_width = d_model // heads
        self.rotary = Rotary(self.head_width) if rotary else None
        self.qkv = nn.Linear(d_model, (heads + 2 * kv_heads) * self.head_width, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self._diversity: Tensor | None = None

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`."""
        q, k, v = self._project(x, start=0)
        return self._read(q, k, v)

    def initial_state(self, batch: int) -> MixerState:
        """No keys, no values; `position` (b,) counts the tokens seen."""
        empty = self.out.weight.new_empty(batch, self.kv_heads, 0, self.head_width)
        return {"k": empty, "v": empty, "position": torch.zeros(batch, dtype=torch.long, device=empty.device)}

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`.

        Raises:
            PacelineError: the part reads both ways, so there is nothing that it could go on from.
        """
        if not self.causal:
            raise PacelineError("attention(causal=False) reads a sequence as a whole: it cannot be continued.")
        q, k, v = self._project(x, start=state["position"])
        k, v = torch.cat((state["k"], k), dim=2), torch.cat((state["v"], v), dim=2)
        y = self._read(q, k, v)
        kept = k.shape[2] if self.window is None else min(self.window - 1, k.shape[2])
        first = k.shape[2] - kept
        if first:  # a view would keep the forgotten tokens in memory
            k, v = k[:, :, first:].clone(), v[:, :, first:].clone()
        return y, {"k": k, "v": v, "position": state["position"] + x.shape[1]}

    def state_bytes(self, batch: int, length: int) -> int:
        """Keys and values of the tokens still seen, and the position."""
        kept = length if self.window is None else min(self.window - 1, length)
        return batch * (2 * self.kv_heads * kept * self.head_width * self.out.weight.element_size() + 8)

    def flops(self, batch: int, length: int) -> Flops:
        """Projections and scores; full attention counts the whole square, as the kernels and their counters do."""
        projections = 2.0 * batch * length * (self.qkv.weight.numel() + self.out.weight.numel())
        rows = batch * self.heads
        if self.window is None or self.window >= length:
            return Flops(projections + 4.0 * rows * length * length * self.head_width)
        return Flops(projections + window_products(rows, length, self.window - 1, self.head_width, self.head_width))

    def meters(self) -> dict[str, float]:
        """`diversity`, where query heads share keys and values: how far what they read there differs, in the last run.

        The variance over the heads that share, as a share of the mean square: 0 where one query would have done.
        """
        return {} if self._diversity is None else {"diversity": self._diversity.item()}

    def _read(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = self._attend(q, k, v)
        if self.kv_heads < self.heads:
            self._diversity = _diversity(heads.detach(), self.kv_heads)
        return self._merge(heads)

    def _project(self, x: Tensor, start: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.qkv(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        if self.rotary is not None:
            positions = torch.arange(x.shape[1], device=x.device)
            if isinstance(start, Tensor):
                positions = (start.unsqueeze(1) + positions).unsqueeze(1)  # (b, 1, t): one for all heads
            turns = self.rotary.turns(positions)
            q, k = rotate(q, turns), rotate(k, turns)
        return q, k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, heads, t, s) after keys that may begin earlier than the queries."""
        groups = self.heads // self.kv_heads
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        length, past = q.shape[2], k.shape[2] - q.shape[2]
        if self.window is not None and past + length > self.window:
            flat = windowed_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), self.window - 1)
            return flat.unflatten(0, (-1, self.heads))
        if past == 0 or length == 1:
            return functional.scaled_dot_product_attention(q, k, v, is_causal=past == 0 and self.causal)
        seen = torch.ones(length, past + length, dtype=torch.bool, device=q.device).tril(past)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    def _merge(self, heads: Tensor) -> Tensor:
        return self.out(heads.transpose(1, 2).flatten(2))


def _diversity(heads: Float[Tensor, "b h t s"], shared: int) -> Float[Tensor, ""]:
    """Variance between the heads of each of `shared` groups, over the mean square."""
    groups = heads.float().unflatten(1, (shared, -1))
    whole, common = (torch.linalg.vector_norm(z).square() for z in (groups, groups.mean(2)))
    rest = whole - common * groups.shape[2]
    return rest.clamp(min=0) / whole.clamp(min=torch.finfo(torch.float32).tiny)


@torch.no_grad()
def mean_pool(attention: Attention, kv_heads: int) -> Attention:
    """The same layer with fewer key and value heads, each the mean of those that it stands for: GQA's conversion.

    Raises:
        PacelineError: the layer's key and value heads are not a multiple of `kv_heads`.
    """
    if kv_heads < 1 or attention.kv_heads % kv_heads:
        raise PacelineError(f"mean_pool: kv_heads={kv_heads} does not divide the layer's {attention.kv_heads}.")
    rotary, weight, sizes = attention.rotary is not None, attention.qkv.weight, (attention.heads, attention.kv_heads)
    pooled = Attention(attention.d_model, attention.heads, kv_heads, attention.window, rotary, attention.causal)
    q, k, v = weight.unflatten(0, (-1, attention.head_width)).split((*sizes, sizes[1]))
    means = [z.unflatten(0, (kv_heads, -1)).mean(1) for z in (k, v)]
    pooled.to(weight).qkv.weight.copy_(torch.cat((q, *means)).flatten(0, 1))
    pooled.out.weight.copy_(attention.out.weight)
    return pooled


def naive_attention(part: Attention, x: Tensor) -> Tensor:
    """The formula with the whole matrix of scores, per head."""
    q, k, v = part._project(x, start=0)
    window = x.shape[1] if part.window is None else part.window
    groups = part.heads // part.kv_heads
    outputs = [
        naive_windowed_attention(q[:, h], k[:, h // groups], v[:, h // groups], window - 1) for h in range(part.heads)
    ]
    return part.out(torch.cat(outputs, dim=-1))


def example() -> list[tuple[Attention, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [
        (Attention(8, heads=2), naive_attention),
        (Attention(8, heads=4, kv_heads=1, rotary=False), naive_attention),
        (Attention(8, heads=4, kv_heads=2, window=3), naive_attention),
    ]
