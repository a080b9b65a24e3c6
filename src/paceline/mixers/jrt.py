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
from paceline.mixers._scan import wide

PAPERS = (
    Paper(
        title="Just read twice: closing the recall gap for recurrent language models",
        arxiv="2407.05483",
        year=2024,
        says="reading a prompt both ways, or twice, lets a small recurrent state keep what will be asked for",
    ),
)

CHUNK = 128
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
        self.expanded = 1 + features + features * (features + 1) // 2
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
        q, k, v = self._project(x)
        y, s = _chunked(q, k, v, state["s"])
        assert s is not None
        return self._merge(y).to(x.dtype), {"s": s}

    def read_prompt(self, x: Float[Tensor, "b t d"]) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.read_prompt`."""
        y, s = self._read(x, x.shape[1])
        assert s is not None
        return y, {"s": s}

    def after_prompt(self, x: Float[Tensor, "b t d"], prompt: int) -> Float[Tensor, "b t d"]:
        """See `Mixer.after_prompt`; in one pass."""
        return self._read(x, prompt, last=False)[0]

    def state_bytes(self, batch: int, length: int) -> int:
        """The features' products with values and with 1, whatever the length."""
        size = wide(self.out.weight.dtype).itemsize
        return batch * self.expanded * (self.d_model + self.heads) * size

    def flops(self, batch: int, length: int) -> Flops:
        """Projections, chunks and state; the encoder's share for as long a prompt as in the last run."""
        prompt, width, each = min(self._prompt, length), self.d_model + self.heads, self.heads * self.features
        chunks = [min(CHUNK, length - start) for start in range(0, length, CHUNK)]
        inside = 2.0 * sum(size**2 for size in chunks) * (each + width)
        read = length if prompt else length - chunks[0]  # tokens that a state comes before
        written = length - chunks[-1] + prompt
        between = 2.0 * (read + written) * self.expanded * width
        maps = 2.0 * self.d_model * (length * (self.causal_rows + self.d_model) + prompt * (each + self.d_model))
        return Flops(batch * (inside + between + maps))

    def meters(self) -> dict[str, float]:
        """`ahead`: of a prompt's attention, the share on later tokens; of the first sequence, some tokens of it."""
        if self._probe is None:
            return {}
        q, k, told = self._probe
        at = torch.linspace(0, q.shape[-1] - 1, min(PROBES, q.shape[-1]), device=q.device).long()
        later = torch.arange(q.shape[-1], device=q.device) > at.unsqueeze(1)
        causal, encoded = (_polynomial(q[..., at].transpose(-1, -2) @ z) for z in (k, told))
        ahead = (encoded * later).sum(-1) / (encoded + causal * ~later).sum(-1)
        return {"ahead": float(ahead.mean())}

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys (b, heads, n, t), scaled, and values with a 1 behind them (b, heads, t, s + 1)."""
        each = self.heads * self.features
        q, k, v = functional.linear(x, self.proj[: self.causal_rows]).split((each, each, self.d_model), dim=-1)
        return self._key(q), self._key(k), self._value(v)

    def _read(self, x: Tensor, prompt: int, last: bool = True) -> tuple[Tensor, Tensor | None]:
        """The encoder's sums over the prompt are the state that the causal pass begins from."""
        (q, k, v), s = self._project(x), None
        told = x[:, :prompt] if self.encoder else x[:, :0]
        self._prompt, self._probe = told.shape[1], None
        if self._prompt:
            keys, values = self._encode(told)
            for kc, vc in zip(keys.split(CHUNK, dim=-1), values.split(CHUNK, dim=-2), strict=True):
                s = _tell(s, kc, vc)
            first = [z[:1, ..., : self._prompt].detach().clone() for z in (q, k, keys)]
            self._probe = (first[0], first[1], first[2])
        y, s = _chunked(q, k, v, s, last)
        return self._merge(y).to(x.dtype), s

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's keys and values of a prompt, shaped as the others."""
        encoder, each = self.proj[self.causal_rows :], self.heads * self.features
        keys, values = functional.linear(x, encoder).split((each, self.d_model), dim=-1)
        return self._key(keys), self._value(values)

    def _key(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (self.heads, self.features)).permute(0, 2, 3, 1)
        return (heads * self.features**-0.25).to(wide(x.dtype)).contiguous()

    def _value(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return functional.pad(heads, (0, 1), value=1.0).to(wide(x.dtype))

    def _merge(self, y: Tensor) -> Tensor:
        mixed = y[..., :-1] / y[..., -1:]
        return self.out(mixed.transpose(1, 2).flatten(2).to(self.out.weight.dtype))


def _polynomial(scores: Tensor) -> Tensor:
    """1 + s + s^2 / 2, at least 1/2."""
    return torch.add(0.5, (scores + 1).square(), alpha=0.5)


def _features(x: Float[Tensor, "b heads n t"]) -> Float[Tensor, "b heads e t"]:
    """f(x): f(q) . f(k) is `_polynomial(q . k)`. Every product of two different numbers is there once."""
    n = x.shape[-2]
    parts = [torch.ones_like(x[..., :1, :]), x, x * x * 2**-0.5]
    parts += [x * x.roll(-shift, dims=-2) for shift in range(1, (n + 1) // 2)]
    if n % 2 == 0:
        parts.append(torch.mul(*x.chunk(2, dim=-2)))
    return torch.cat(parts, dim=-2)


def _tell(s: Tensor | None, k: Tensor, v: Tensor) -> Tensor:
    """The state with more keys and values in it."""
    told = _features(k) @ v
    return told if s is None else s + told


def _chunked(
    q: Tensor, k: Tensor, v: Tensor, s: Tensor | None, last: bool = True
) -> tuple[Float[Tensor, "b heads t e"], Tensor | None]:
    """f(q_i) (s + sum_{j<=i} f(k_j) v_j^T), and s after the last token, where it is wanted."""
    size = min(CHUNK, q.shape[-1])
    mask = torch.ones(size, size, dtype=q.dtype, device=q.device).tril()
    outputs, left = [], q.shape[-1]
    for qc, kc, vc in zip(q.split(CHUNK, -1), k.split(CHUNK, -1), v.split(CHUNK, -2), strict=True):  # not tokens
        size = vc.shape[2]
        y = (_polynomial(qc.transpose(-1, -2) @ kc) * mask[:size, :size]) @ vc
        if s is not None:
            y = y + _features(qc).transpose(-1, -2) @ s
        outputs.append(y)
        left -= size
        if last or left:
            s = _tell(s, kc, vc)
    return torch.cat(outputs, dim=2), s


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
