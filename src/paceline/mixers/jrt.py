"""JRT-RNN's prefix linear attention: a prompt is read both ways, what follows it causally, from a constant state.

    o_i = f(q_i) (S_M + sum_{j<=i} f(k_j) v_j^T) / f(q_i) (z_M + sum_{j<=i} f(k_j)),     y = W_o o
    S_M = sum_{j<=M} f(k'_j) v'_j^T,   z_M = sum_{j<=M} f(k'_j)       over the M tokens of the prompt, 0 without one

with k', v' the encoder's own projections of the prompt, and Based's feature map: f(q) . f(k) = 1 + s + s^2 / 2, the
exponential's second Taylor polynomial, s = q . k / sqrt(n), by 1 + n + n (n + 1) / 2 features of n numbers.
In chunks of c tokens: inside a chunk the polynomial of the scores, between chunks S and z.
Time O(b t d (c + n^2)), linear in t. State: (1 + n + n (n + 1) / 2) x (d + heads) numbers a sequence.

Departures: a product of two features is held once and not twice, which halves the state and changes no number; sums
are kept in float32 at least; the prompt may have any length, where the authors pad theirs to a fixed one; there is no
epsilon in the denominator, whose terms are at least 1/2. The loss on masked tokens of the prompt that the paper adds in
pretraining is not part of the mixer: here prompts carry no targets. The paper alternates these layers with short
convolutions and sliding windows, which a plan can do too.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._polynomial import expanded, polynomial, prefix_attention, products, told
from paceline.mixers._scan import wide

PAPERS = (
    Paper(
        title="Just read twice: closing the recall gap for recurrent language models",
        arxiv="2407.05483",
        year=2024,
        says="reading a prompt both ways, or twice, lets a small recurrent state keep what will be asked for",
    ),
)

PROBES = 64
"""Queries that the meter is taken from."""


class JRT(Mixer):
    """Linear attention that reads a prompt both ways.

    Args:
        d_model: width d, a multiple of `heads`.
        heads: heads.
        features: numbers n of a query or key, before the feature map.
        encoder: whether a prompt is read both ways; without, it is Based's causal linear attention.

    Raises:
        PacelineError: the width is not a multiple of the heads, or a query has no numbers.
    """

    looks_ahead = True

    def __init__(self, d_model: int, heads: int = 4, features: int = 16, encoder: bool = True) -> None:
        super().__init__()
        if heads < 1 or d_model % heads:
            raise PacelineError(f"jrt: the width {d_model} is not a multiple of heads={heads}.")
        if features < 1:
            raise PacelineError(f"jrt: features={features} leaves queries and keys empty; give at least 1.")
        self.d_model, self.heads, self.features, self.encoder = d_model, heads, features, encoder
        self.expanded = expanded(features)
        pair = heads * features + d_model  # a key and a value
        self.causal_rows = heads * features + pair
        # One matrix, of which only a prompt reads the encoder's rows; bare, so that no adapter hooks on in vain.
        self.proj = nn.Parameter(nn.Linear(d_model, self.causal_rows + pair * encoder, bias=False).weight.detach())
        self.out = nn.Linear(d_model, d_model, bias=False)
        self._prompt = 0
        self._probe: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`."""
        return self.after_prompt(x, 0)

    def initial_state(self, batch: int) -> MixerState:
        """S = 0 and z = 0, as the last column of one tensor."""
        weight = self.out.weight
        shape = (batch, self.heads, self.expanded, self.d_model // self.heads + 1)
        return {"s": weight.new_zeros(shape, dtype=wide(weight.dtype))}

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`."""
        y, s = prefix_attention(*self._project(x), state["s"])
        return self._merge(y), {"s": s}

    def read_prompt(self, x: Float[Tensor, "b t d"]) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.read_prompt`."""
        y, s = self._read(x, x.shape[1])
        return y, {"s": s}

    def after_prompt(self, x: Float[Tensor, "b t d"], prompt: int) -> Float[Tensor, "b t d"]:
        """See `Mixer.after_prompt`; in one pass."""
        return self._read(x, prompt)[0]

    def state_bytes(self, batch: int, length: int) -> int:
        """The features' products with values and with 1, whatever the length."""
        size = wide(self.out.weight.dtype).itemsize
        return batch * self.expanded * (self.d_model + self.heads) * size

    def flops(self, batch: int, length: int) -> Flops:
        """Projections, chunks and state; the encoder's share for as long a prompt as in the last run."""
        prompt, each = min(self._prompt, length), self.heads * self.features
        maps = 2.0 * self.d_model * (length * (self.causal_rows + self.d_model) + prompt * (each + self.d_model))
        value = self.d_model // self.heads + 1
        return Flops(batch * maps + products(batch, self.heads, self.features, value, length, prompt))

    def meters(self) -> dict[str, float]:
        """`ahead`: of a prompt's attention, the share on later tokens; of the first sequence, some tokens of it."""
        if self._probe is None:
            return {}
        q, k, encoded = self._probe  # (t, heads, n) each
        at = torch.linspace(0, len(q) - 1, min(PROBES, len(q)), device=q.device).long()
        later = torch.arange(len(q), device=q.device) > at.unsqueeze(1)
        seen, foreseen = (polynomial(torch.einsum("ihn,jhn->hij", q[at], z)) for z in (k, encoded))
        ahead = (foreseen * later).sum(-1) / (foreseen + seen * ~later).sum(-1)
        return {"ahead": float(ahead.mean())}

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys (b, t, heads, n), scaled, and values (b, t, heads, s + 1) with a 1 behind them."""
        each = self.heads * self.features
        q, k, v = functional.linear(x, self.proj[: self.causal_rows]).split((each, each, self.d_model), dim=-1)
        return self._key(q), self._key(k), self._value(v)

    def _read(self, x: Tensor, prompt: int) -> tuple[Tensor, Tensor]:
        """The encoder's sums over the prompt are the state that the causal pass begins from."""
        (q, k, v), s = self._project(x), self.initial_state(x.shape[0])["s"]
        prefix = x[:, :prompt] if self.encoder else x[:, :0]
        self._prompt, self._probe = prefix.shape[1], None
        if self._prompt:
            keys, values = self._encode(prefix)
            s = told(keys, values, s.dtype)
            first = [z[0, : self._prompt].detach().to(s.dtype) for z in (q, k, keys)]
            self._probe = (first[0], first[1], first[2])
        y, s = prefix_attention(q, k, v, s)
        return self._merge(y), s

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's keys and values of a prompt, shaped as the others."""
        encoder, each = self.proj[self.causal_rows :], self.heads * self.features
        keys, values = functional.linear(x, encoder).split((each, self.d_model), dim=-1)
        return self._key(keys), self._value(values)

    def _key(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.features)).to(wide(x.dtype)) * self.features**-0.25

    def _value(self, x: Tensor) -> Tensor:
        return functional.pad(x.unflatten(-1, (self.heads, -1)), (0, 1), value=1.0)

    def _merge(self, y: Tensor) -> Tensor:
        return self.out((y[..., :-1] / y[..., -1:]).flatten(2).to(self.out.weight.dtype))


def naive_jrt(part: JRT, x: Tensor, prompt: int = 0) -> Tensor:
    """The formula, one token at a time, with the authors' feature map, in which each product comes twice."""

    def features(z: Tensor) -> Tensor:  # (b, heads, n) of one token, unscaled
        squares = (z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(-2)
        n = part.features
        return torch.cat((torch.ones_like(z[..., :1]), z / n**0.25, squares / (2 * n) ** 0.5), dim=-1)

    sizes = [part.heads * part.features] * 2 + [part.d_model]
    sizes += [part.heads * part.features, part.d_model] if part.encoder else []
    heads = [z.unflatten(-1, (part.heads, -1)) for z in functional.linear(x, part.proj).split(sizes, dim=-1)]
    s, z = (x.new_zeros(()) for _ in range(2))
    for t in range(prompt if part.encoder else 0):
        told = features(heads[3][:, t])
        s, z = s + told.unsqueeze(-1) * heads[4][:, t].unsqueeze(-2), z + told
    outputs = []
    for t in range(x.shape[1]):
        asked, told = features(heads[0][:, t]), features(heads[1][:, t])
        s, z = s + told.unsqueeze(-1) * heads[2][:, t].unsqueeze(-2), z + told
        outputs.append((asked.unsqueeze(-2) @ s).squeeze(-2) / (asked * z).sum(-1, keepdim=True))
    return part.out(torch.stack(outputs, dim=1).flatten(2))


def example() -> list[tuple[JRT, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [(JRT(8, heads=2, features=3), naive_jrt), (JRT(8, heads=1, features=4, encoder=False), naive_jrt)]
