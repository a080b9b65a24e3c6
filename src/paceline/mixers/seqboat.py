"""SeqBoat: an EMA over every token, and attention only for the tokens that ask for it.

For x in R^(b, t, d), EMA dimensions n, query/key width s, value width e, memory w, r activated tokens:

    H = SiLU(EMA(Norm(x)))
    G = W_g H + b_g,   gates = LatentConfigurator(H)          (blocks/sma.py; 0 where a token is not activated)
    rows = compress(H):  Z, R, V = SiLU(linear), widths s, e, e;   Q = Z * g1 + b1,  K = Z * g2 + b2
    A = attention(Q, K, V): each activated token sees itself and the w activated tokens before it
    O = extract(W_o (A * R)) * gates
    y = SiLU(x + G + O)

The working memory is counted in activated tokens, so the span in positions is unbounded. Queries and keys are turned
by rotary positions, at the tokens' original indices. A SeqBoat layer brings its own norm and residual.
Time O(b t d (n + chunk + d) + b r (w s + w e + d e)), linear in t. State: d n + w (s + e) numbers a sequence.

Departures, none in the formulas: those of the configurator (blocks/sma.py), and the initialisation. The authors draw
every matrix, and the vectors g1 and g2, with standard deviation 0.02, and train for 400,000 steps at a learning rate of
5e-3; attention then starts as a plain mean, which a short run never leaves. Here matrices start at the scale of their
fan-in, and g1 and g2 at standard deviation 1, drawn apart: with g1 = g2 a token's best match is itself. LOG.md has the
measurements.
"""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.blocks.rotary import Rotary, rotate
from paceline.blocks.sma import LatentConfigurator, compress, extract, pack
from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.hints import hint
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._window import window_products, windowed_attention
from paceline.mixers.ema import DampedEMA, naive_damped_ema

PAPERS = (
    Paper(
        title="Sparse Modular Activation for Efficient Sequence Modeling",
        arxiv="2306.11197",
        year=2023,
        says="A state-space layer that activates attention only where it is needed has a better quality-efficiency "
        "trade-off than hybrids that attend within chunks.",
    ),
)


class GatedAttentionUnit(nn.Module):
    """Gated attention over a window of rows, (b, r, d) -> (b, r, d)."""

    def __init__(self, d_model: int, key_width: int, value_width: int, memory: int, squared_relu: bool) -> None:
        super().__init__()
        self.key_width, self.value_width, self.memory, self.squared_relu = key_width, value_width, memory, squared_relu
        self.inner = nn.Linear(d_model, key_width + 2 * value_width)
        self.scale = hint(nn.Parameter(torch.randn(2, key_width)), weight_decay=0.0)
        self.shift = hint(nn.Parameter(torch.zeros(2, key_width)), weight_decay=0.0)
        self.outer = nn.Linear(value_width, d_model)
        self.rotary = Rotary(key_width)

    def project(
        self, rows: Float[Tensor, "b r d"], positions: Int[Tensor, "b r"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries and keys (b, r, s) turned by their positions, values and output gates (b, r, e)."""
        z, gate, v = functional.silu(self.inner(rows)).split((self.key_width, self.value_width, self.value_width), -1)
        turns = self.rotary.turns(positions)
        q, k = (rotate(z * self.scale[i] + self.shift[i], turns) for i in (0, 1))
        return q, k, v, gate

    def flops(self, batch: int, rows: int) -> float:
        """Products of the projections and of attention over `rows` rows in each of `batch` sequences."""
        projections = 2.0 * batch * rows * (self.inner.weight.numel() + self.outer.weight.numel())
        return projections + window_products(batch, rows, self.memory, self.key_width, self.value_width)


class SeqBoat(Mixer):
    """A SeqBoat layer, causal.

    Args:
        d_model: width d.
        memory: w, how many activated tokens before itself a token sees.
        key_width: s, even. Default: d / 4, at least 16.
        value_width: e. Default: 2 d.
        dims: EMA dimensions n.
        temperature: c of the configurator's tau_0 = c sqrt(d).
        squared_relu: attention by relu(QK^T / w)^2 instead of softmax.
        always: activate every token with gate 1, which makes the layer a dense EMA + attention hybrid.

    Raises:
        PacelineError: a size is below 1, or the key width is odd.
    """

    is_layer = True

    def __init__(
        self,
        d_model: int,
        memory: int = 64,
        key_width: int | None = None,
        value_width: int | None = None,
        dims: int = 16,
        temperature: float = 1.0,
        squared_relu: bool = False,
        always: bool = False,
    ) -> None:
        super().__init__()
        if memory < 1:
            raise PacelineError(f"seqboat: memory={memory} holds nothing; give at least 1.")
        self.d_model, self.memory, self.always = d_model, memory, always
        self.norm = nn.LayerNorm(d_model)
        self.ema = DampedEMA(d_model, dims)
        self.branch = nn.Linear(d_model, d_model)
        self.configurator = None if always else LatentConfigurator(d_model, temperature)
        key_width = max(16, d_model // 8 * 2) if key_width is None else key_width
        value_width = 2 * d_model if value_width is None else value_width
        if min(key_width, value_width) < 1:
            raise PacelineError(f"seqboat: key_width={key_width}, value_width={value_width}: give each at least 1.")
        self.unit = GatedAttentionUnit(d_model, key_width, value_width, memory, squared_relu)
        self._gates: Tensor | None = None

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`. Includes the residual."""
        h = functional.silu(self.ema(self.norm(x)))
        start = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
        return functional.silu(x + self.branch(h) + self._attend(h, start, None)[0])

    def initial_state(self, batch: int) -> MixerState:
        """EMA at zero, an empty working memory of w rows (`valid` tells which are in use), position 0."""
        weight, unit = self.branch.weight, self.unit
        return {
            "h": weight.new_zeros(batch, self.d_model, self.ema.dims),
            "k": weight.new_zeros(batch, self.memory, unit.key_width),
            "v": weight.new_zeros(batch, self.memory, unit.value_width),
            "valid": torch.zeros(batch, self.memory, dtype=torch.bool, device=weight.device),
            "position": torch.zeros(batch, dtype=torch.long, device=weight.device),
        }

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`."""
        ema, after = self.ema.extend(self.norm(x), state["h"])
        h = functional.silu(ema)
        attended, memory = self._attend(h, state["position"], state)
        y = functional.silu(x + self.branch(h) + attended)
        return y, {"h": after, **memory, "position": state["position"] + x.shape[1]}

    def state_bytes(self, batch: int, length: int) -> int:
        """EMA state, w keys and values with their flags, and the position, whatever the length."""
        numbers = self.d_model * self.ema.dims + self.memory * (self.unit.key_width + self.unit.value_width)
        return batch * (numbers * self.branch.weight.element_size() + self.memory + 8)

    def flops(self, batch: int, length: int) -> Flops:
        """EMA, branch and configurator on every token, the attention unit on as many rows as in the last run.

        Those are the activated tokens of the sequence with the most: the others' rows are padded, and executed.
        """
        maps = [self.branch] if self.configurator is None else [self.branch, self.configurator.logits]
        dense = 2.0 * batch * length * sum(linear.weight.numel() for linear in maps)
        share = 1.0 if self._gates is None else (self._gates > 0).float().mean(dim=1).max().item()
        return Flops(self.ema.products(batch, length) + dense + self.unit.flops(batch, round(length * share)))

    def meters(self) -> dict[str, float]:
        """`activated`: share of tokens that attended in the last run."""
        return {} if self._gates is None else {"activated": (self._gates > 0).float().mean().item()}

    def trace(self) -> Float[Tensor, "b t"] | None:
        """The gates of the last run."""
        return self._gates

    def _attend(self, h: Tensor, start: Tensor, past: MixerState | None) -> tuple[Tensor, MixerState]:
        gates = torch.ones(h.shape[:2], device=h.device) if self.configurator is None else self.configurator(h)
        self._gates = gates.detach()
        packing = pack(gates > 0)
        kept = {} if past is None else {name: past[name] for name in ("k", "v", "valid")}
        if packing.source.shape[1] == 0:
            return torch.zeros_like(h), kept
        unit = self.unit
        q, k, v, gate = unit.project(compress(h, packing), packing.source + start.unsqueeze(1))
        valid = packing.valid
        if past is not None:
            k, v = torch.cat((past["k"], k), dim=1), torch.cat((past["v"], v), dim=1)
            valid = torch.cat((past["valid"], valid), dim=1)
        mixed = windowed_attention(q, k, v, self.memory, valid=valid, squared_relu=unit.squared_relu)
        attended = extract(unit.outer(mixed * gate), packing) * gates.unsqueeze(-1).type_as(h)
        return attended, (kept if past is None else _recent(k, v, valid, packing.valid.sum(dim=1), self.memory))


def _recent(k: Tensor, v: Tensor, valid: Tensor, new: Int[Tensor, " b"], memory: int) -> MixerState:
    """The last `memory` rows up to each sequence's own last activated token, which stands at memory + new - 1."""
    rows = new.unsqueeze(1) + torch.arange(memory, device=k.device)  # (b, w)
    pick = rows.unsqueeze(-1)
    return {
        "k": k.gather(1, pick.expand(-1, -1, k.shape[-1])),
        "v": v.gather(1, pick.expand(-1, -1, v.shape[-1])),
        "valid": valid.gather(1, rows),
    }


def naive_seqboat(part: SeqBoat, x: Tensor) -> Tensor:
    """Token by token: whoever is activated looks at the memory, and then enters it."""
    h = functional.silu(naive_damped_ema(part.ema, part.norm(x)))
    gates = torch.ones(h.shape[:2]) if part.configurator is None else part.configurator(h)
    attended = []
    for row, gate_row in zip(h, gates, strict=True):
        memory: list[tuple[Tensor, Tensor]] = []
        outputs = []
        for position, (token, gate) in enumerate(zip(row, gate_row, strict=True)):
            if gate == 0:
                outputs.append(torch.zeros_like(token))
                continue
            q, k, v, r = (z[0, 0] for z in part.unit.project(token.view(1, 1, -1), torch.tensor([[position]])))
            memory = [*memory, (k, v)][-part.memory - 1 :]
            scores = torch.stack([q @ key for key, _ in memory])
            if part.unit.squared_relu:
                weights = functional.relu(scores / part.memory).square()
            else:
                weights = (scores * part.unit.key_width**-0.5).softmax(dim=0)
            mixed = sum(weight * value for weight, (_, value) in zip(weights, memory, strict=True))
            outputs.append(part.unit.outer(mixed * r) * gate)
        attended.append(torch.stack(outputs))
    return functional.silu(x + part.branch(h) + torch.stack(attended))


def example() -> list[tuple[SeqBoat, object]]:
    """Instances for the contract tests, each with its naive twin."""
    small = partial(SeqBoat, d_model=8, memory=3, key_width=4, value_width=6, dims=3)
    parts = [small(), small(squared_relu=True), small(always=True)]
    for part in parts[:2]:
        assert part.configurator is not None
        nn.init.zeros_(part.configurator.logits.bias)  # some tokens each way
    return [(part, naive_seqboat) for part in parts]
