"""Sparse Modular Activation (SMA): run a module only on the tokens that ask for it.

A latent configurator reads each token's state h in R^d and emits logits over two options:

    P = softmax(U / tau),  U = W h + b in R^2,  tau = exp(theta), theta learned, tau_0 = c sqrt(d)
    active = argmax P == 1,   gate = P_1 where active, else 0
    y = gate * extract(module(compress(h)))

`compress` packs the active rows of every sequence, in order, to the front of a shorter sequence of length
r = the largest count in the batch; `extract` is its inverse, zero elsewhere. The gate is the probability of the
option taken, so the decision receives a gradient though the argmax has none. An option not taken receives none: a
module that is switched off on every token never comes back.

Departures, for runs of hundreds of steps instead of the authors' 400,000: b starts at (0, 0.2), which activates nearly
every token (at 0 a random 10 to 90 %), and the configurator learns at a tenth of the rate, so that it does not switch
the module off before that has learned anything. LOG.md has the measurements.
Cost: O(b t d) for the configurator plus the module on b x r rows; nothing active, nothing run.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.hints import hint

PAPERS = (
    Paper(
        title="Sparse Modular Activation for Efficient Sequence Modeling",
        arxiv="2306.11197",
        year=2023,
        says="Modules activated sparsely and differentiably per token give a better quality-efficiency trade-off "
        "than running them on chunks, and show how much attention each task needs.",
    ),
)


class LatentConfigurator(nn.Module):
    """Per token: is option 1 (run the module) taken, and with what probability?

    Args:
        d_model: width d of the state that it reads.
        temperature: c in tau_0 = c sqrt(d); 1 for language, 0.3 for long-range classification in the paper.

    Raises:
        PacelineError: the temperature is not above 0.
    """

    def __init__(self, d_model: int, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise PacelineError(f"A configurator's temperature={temperature} divides its logits: give more than 0.")
        self.logits = nn.Linear(d_model, 2)
        self.theta = nn.Parameter(torch.tensor(math.log(temperature * math.sqrt(d_model))))
        nn.init.trunc_normal_(self.logits.weight, std=0.02, a=-0.04, b=0.04)
        with torch.no_grad():
            self.logits.bias.copy_(torch.tensor((0.0, 0.2)))
        for parameter in self.parameters():
            hint(parameter, lr_scale=0.1)

    def forward(self, h: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
        """Gates: the probability of option 1 where it wins, else exactly 0."""
        logits = self.logits(h)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # at least fp32: it decides
        probability = torch.softmax(logits / self.theta.exp(), dim=-1)[..., 1]
        return probability * (probability > 0.5)


@dataclass(frozen=True)
class Packing:
    """Which tokens are active, and where they stand in the compressed sequence (b, r)."""

    active: Bool[Tensor, "b t"]
    source: Int[Tensor, "b r"]
    """Original index of each compressed row; padding rows point at index 0."""
    valid: Bool[Tensor, "b r"]
    """False for the padding at the end of the rows of sequences with fewer than r active tokens."""


def pack(active: Bool[Tensor, "b t"]) -> Packing:
    """Where the active tokens go: in order, to the front, r = the largest count of the batch."""
    batch, _ = active.shape
    counts = active.sum(dim=1)
    longest = int(counts.max()) if active.numel() else 0
    valid = torch.arange(longest, device=active.device) < counts.unsqueeze(1)
    source = torch.zeros(batch, longest, dtype=torch.long, device=active.device)
    source[valid] = active.nonzero()[:, 1]  # both are in row-major order
    return Packing(active, source, valid)


def compress(x: Float[Tensor, "b t d"], packing: Packing) -> Float[Tensor, "b r d"]:
    """The active rows of x at the front; padding rows are zero."""
    return _take(x, packing.source) * packing.valid.unsqueeze(-1)


def extract(rows: Float[Tensor, "b r d"], packing: Packing) -> Float[Tensor, "b t d"]:
    """The inverse of `compress`: rows back at their original places, zero where nothing was active."""
    slots = (packing.active.cumsum(dim=1) - 1).clamp(min=0)
    return _take(rows, slots) * packing.active.unsqueeze(-1)


def _take(x: Float[Tensor, "b n d"], index: Int[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
    """Rows of each sequence by index, as an embedding look-up: the one gather with a fast backward pass on a CPU."""
    offsets = torch.arange(x.shape[0], device=x.device).unsqueeze(1) * x.shape[1]
    return functional.embedding(index + offsets, x.flatten(0, 1))


class SMA(nn.Module):
    """Sparse Modular Activation: any module of (b, r, d) -> (b, r, d), run on the activated tokens only.

    The module sees the compressed sequence; padding rows come last and are zero, and what it returns for them is
    dropped. A module that mixes tokens should therefore be causal.
    """

    def __init__(self, module: nn.Module, d_model: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.module = module
        self.configurator = LatentConfigurator(d_model, temperature)
        self.gates: Tensor | None = None

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """gate * module(x) on the activated tokens, zero on the others."""
        gates = self.configurator(x)
        self.gates = gates.detach()
        packing = pack(gates > 0)
        if packing.source.shape[1] == 0:
            return torch.zeros_like(x)
        return extract(self.module(compress(x, packing)), packing) * gates.unsqueeze(-1).type_as(x)

    def meters(self) -> dict[str, float]:
        """`activated`: share of tokens activated in the last run."""
        return {} if self.gates is None else {"activated": (self.gates > 0).float().mean().item()}


def example() -> SMA:
    """The smallest instance for the contract tests."""
    part = SMA(nn.Linear(8, 8), d_model=8)
    nn.init.zeros_(part.configurator.logits.bias)  # some tokens each way
    return part
