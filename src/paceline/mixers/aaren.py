"""Aaren: attention as a recurrent network. The query is learned, the same for all tokens; keys and values are theirs.

    o_t = sum_{j<=t} softmax_j(q . k_j / sqrt(s)) v_j      q = W_q query,  k_j = W_k x_j,  v_j = W_v x_j

so that a head's past is a triple: the largest score m, u = sum_j exp(s_j - m) and w = sum_j exp(s_j - m) v_j, joined by

    m = max(m_A, m_B),   u = u_A exp(m_A - m) + u_B exp(m_B - m),   w likewise,   o = w / u.

Layers stack as a Transformer's do, each with its own query, and outputs pass through W_o: only the query differs.
Computed in chunks of c tokens: inside by the triangle of exp(s_j - m_i) times the values, between them by the same
prefix over the chunks' triples, and so on: no loop over tokens or chunks. The paper scans tree-wise: the same numbers.
Where numba is installed, a processor takes the recurrence itself, compiled: see `_average_numba.py`.
Time O(b t d (d + c)), linear in t. State: heads x (s + 2) numbers a sequence, s = d / heads, whatever the length.

Departures: W_q and W_k without bias (on keys it cancels in the softmax). The product q W_k is taken first, so that no
key is formed: the same scores for d x heads products a token instead of d x d. The sums are kept in float32 at least.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._scan import compilable, wide

PAPERS = (
    Paper(
        title="Attention as an RNN",
        arxiv="2405.13956",
        year=2024,
        says="attention with a learned query is on a par with a Transformer, with a state of constant size",
    ),
)

CHUNK = 64


class Aaren(Mixer):
    """Softmax attention of one learned query over the past, many-to-many.

    Args:
        d_model: width d, a multiple of `heads`.
        heads: heads, each with its part of the query.

    Raises:
        PacelineError: the width is not a multiple of the heads.
    """

    def __init__(self, d_model: int, heads: int = 4) -> None:
        super().__init__()
        if heads < 1 or d_model % heads:
            raise PacelineError(f"aaren: the width {d_model} is not a multiple of heads={heads}.")
        self.d_model, self.heads, self.head_width = d_model, heads, d_model // heads
        self.query = nn.Parameter(torch.randn(d_model))
        self.to_query = nn.Linear(d_model, d_model, bias=False)
        self.to_key = nn.Linear(d_model, d_model, bias=False)
        self.to_value = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self._attended: Tensor | None = None

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`."""
        return self.extend(x, self.initial_state(x.shape[0]))[0]

    def initial_state(self, batch: int) -> MixerState:
        """Nothing seen: m as low as can be, u = 0 and w = 0, the two side by side in `sums`."""
        weight = self.out.weight
        sums = weight.new_zeros(batch, self.heads, self.head_width + 1, dtype=wide(weight.dtype))
        return {"m": torch.full_like(sums[..., 0], torch.finfo(sums.dtype).min), "sums": sums}

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`."""
        scores, values = self.scores(x).to(wide(x.dtype)), self.to_value(x).to(wide(x.dtype))
        self._attended = _effective(scores.detach())
        y, m, sums = averages(scores, values, state["m"], state["sums"])
        return self.out(y.type_as(x)), {"m": m, "sums": sums}

    def scores(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b heads t"]:
        """q . k_j / sqrt(s) of each head and token."""
        query = self.to_query(self.query).view(self.heads, 1, self.head_width) * self.head_width**-0.5
        folded = query @ self.to_key.weight.view(self.heads, self.head_width, self.d_model)
        return functional.linear(x, folded.squeeze(1)).transpose(1, 2)

    def state_bytes(self, batch: int, length: int) -> int:
        """Sums, their denominator and the largest score of each head, in float32 at least, whatever the length."""
        return batch * self.heads * (self.head_width + 2) * wide(self.out.weight.dtype).itemsize

    def flops(self, batch: int, length: int) -> Flops:
        """Values, scores and output, the query's two products, and the recurrence or the triangles of all levels."""
        tokens = 2.0 * batch * length * self.d_model * (2 * self.d_model + self.heads) + 4.0 * self.d_model**2
        if compilable(self.out.weight.new_empty(0, dtype=wide(self.out.weight.dtype))):
            return Flops(tokens, 4.0 * batch * length * self.d_model)
        rows, inside = batch * self.heads, 0.0
        while length:
            chunk = min(CHUNK, length)
            chunks = -(-length // chunk)
            inside += 2.0 * rows * chunks * chunk**2 * (self.head_width + 1)
            length = chunks - 1
        return Flops(tokens + inside)

    def meters(self) -> dict[str, float]:
        """`attended`: effective tokens behind the last output, (sum w)^2 / sum w^2, as a share of the last run's.

        1 is a plain average of all tokens, 1 / t is one token of t. Mean over heads and sequences.
        """
        return {} if self._attended is None else {"attended": self._attended.item()}

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)


def averages(
    scores: Float[Tensor, "b h t"],
    values: Float[Tensor, "b t d"],
    m: Float[Tensor, "b h"],
    sums: Float[Tensor, "b h v"],
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b h"], Float[Tensor, "b h v"]]:
    """Each head's averages w / u, going on from a state (m, sums), and the state after them."""
    if compilable(scores, values, m, sums):
        from paceline.mixers._average_numba import CompiledAverages

        y, top, after = CompiledAverages.apply(*(part.contiguous() for part in (scores, values, m, sums)))
        return y, top, after
    split = values.unflatten(2, (scores.shape[1], -1)).transpose(1, 2)
    tops, all_sums = prefixes(scores, functional.pad(split, (0, 1), value=1.0), m, sums)
    y = (all_sums[..., :-1] / all_sums[..., -1:]).transpose(1, 2).flatten(2)
    return y, tops[..., -1].clone(), all_sums[..., -1, :].clone()


def prefixes(
    scores: Float[Tensor, "b h t"],
    values: Float[Tensor, "b h t v"],
    m: Float[Tensor, "b h"],
    sums: Float[Tensor, "b h v"],
) -> tuple[Float[Tensor, "b h t"], Float[Tensor, "b h t v"]]:
    """After each token: the largest score m_i, and sum_{j<=i} exp(s_j - m_i) v_j, going on from a state (m, sums).

    m is a scale that cancels in the quotient of two such sums, so no gradient passes through it.
    """
    length = scores.shape[2]
    chunk = min(CHUNK, length)
    lacking = -length % chunk
    scores = functional.pad(scores, (0, lacking), value=torch.finfo(scores.dtype).min).unflatten(2, (-1, chunk))
    values = functional.pad(values, (0, 0, 0, lacking)).unflatten(2, (-1, chunk))
    inner = scores.detach().cummax(3).values  # (b, h, chunks, c)
    future = torch.ones(chunk, chunk, dtype=torch.bool, device=scores.device).triu(1)
    weights = (scores.unsqueeze(3) - inner.unsqueeze(4)).masked_fill_(future, -torch.inf).exp_()  # (b, h, chunks, i, j)
    found = weights @ values
    before, entering = m.detach().unsqueeze(2), sums.unsqueeze(2)
    if scores.shape[2] > 1:  # what enters each chunk: the same prefix, over the triples of the chunks before it
        later = prefixes(inner[:, :, :-1, -1], found[:, :, :-1, -1], m, sums)
        before, entering = torch.cat((before, later[0]), dim=2), torch.cat((entering, later[1]), dim=2)
    largest = torch.maximum(inner, before.unsqueeze(3))
    kept, carried = (inner - largest).exp().unsqueeze(4), (before.unsqueeze(3) - largest).exp().unsqueeze(4)
    joined = kept * found + carried * entering.unsqueeze(3)
    return largest.flatten(2, 3)[:, :, :length], joined.flatten(2, 3)[:, :, :length]


def _effective(scores: Tensor) -> Tensor:
    weights = (scores - scores.amax(2, keepdim=True)).exp()
    return (weights.sum(2).square() / weights.square().sum(2)).mean() / scores.shape[2]


def naive_aaren(part: Aaren, x: Tensor) -> Tensor:
    """The recurrence of the paper, one token at a time, with keys."""
    query = part.to_query(part.query).unflatten(-1, (part.heads, part.head_width))
    keys, values = part._heads(part.to_key(x)), part._heads(part.to_value(x))
    a, c = torch.zeros_like(values[:, :, 0]), torch.zeros_like(values[:, :, 0, :1])
    m = torch.full_like(c, -torch.inf)
    outputs = []
    for t in range(x.shape[1]):
        score = (query * keys[:, :, t]).sum(-1, keepdim=True) * part.head_width**-0.5
        largest = torch.maximum(m, score)
        old, new = (m - largest).exp(), (score - largest).exp()
        a, c, m = a * old + values[:, :, t] * new, c * old + new, largest
        outputs.append(a / c)
    return part.out(torch.stack(outputs, dim=1).flatten(2))


def example() -> list[tuple[Aaren, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [(Aaren(8, heads=2), naive_aaren), (Aaren(8, heads=1), naive_aaren)]
