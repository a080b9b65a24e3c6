"""Mixture of experts: a router sends each token to `top` of E SwiGLU experts; the load is balanced over a global batch.

    p = softmax(W_r x) in R^E                                   in float32 at least
    y = sum over the chosen e of w_e SwiGLU_e(x),   w = p over the chosen, divided by their sum; where top = 1, w = p
    loss = balance * E sum_i f_i P_i                            `auxiliary_loss`, to be added to the task's

P_i is the mean of p_i over the tokens of the pass; f_i is the share of choices that fell on expert i, a constant to
the gradient. The loss is 1 where either is uniform. The scope tells whose choices f counts:

    sequence    each sequence of (..., t, d) has an f and a P of its own; the mean of their losses
    micro       the tokens of this pass of this process
    global      all processes of `torch.distributed`, and the passes since `begin_step`: the paper's buffer

Over several passes the last alone knows all choices of the step; the first knows its own, of all processes. No token
is dropped. f is over tokens times top, as in Megatron-LM, whose `global_aux_loss` follows the paper; losses that leave
that out, as in transformers, are `top` times as large. Evaluation counts nothing and sends nothing. The paper's models
leave w = p for any top, and have shared experts and a z-loss besides, which are not here.
`--feed-forward 'moe(experts=8)'` puts it into the models of `paceline train` and `race`, `lm/huggingface/upcycle.py`
into Hugging Face's.
Cost: O(n d E) for the router, O(n top d h) for the experts, each one product on its own rows, sorted by expert.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn import functional

from paceline.core.card import Paper, Source
from paceline.core.errors import PacelineError

PAPERS = (
    Paper(
        title="Demons in the Detail: On Implementing Load Balancing Loss for Training Specialized Mixture-of-Expert "
        "Models",
        arxiv="2501.11873",
        year=2025,
        says="Balancing the experts' load over the global batch instead of each micro-batch gives a better model, "
        "whose experts specialise in domains.",
    ),
    Source(
        title="Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer",
        arxiv="1701.06538",
        year=2017,
    ),
)

SCOPES = ("sequence", "micro", "global")


class MoE(nn.Module):
    """Token-choice mixture of SwiGLU experts with a load-balancing loss.

    Args:
        d_model: width d.
        hidden: width h of one expert.
        experts: their number E.
        top: how many of them a token is sent to.
        balance: weight of the load-balancing loss.
        scope: over which tokens the load is to be balanced: `sequence`, `micro` or `global`.

    Raises:
        PacelineError: `top` is not between 1 and `experts`, the weight is negative, or the scope unknown.
    """

    def __init__(
        self, d_model: int, hidden: int, experts: int = 4, top: int = 2, balance: float = 0.01, scope: str = "global"
    ) -> None:
        super().__init__()
        if not 1 <= top <= experts:
            raise PacelineError(f"moe: a token goes to top={top} of experts={experts}: give 1 <= top <= experts.")
        if not 0 <= balance < math.inf:
            raise PacelineError(f"moe: balance={balance} weighs a loss: give 0 or more, such as 0.01.")
        if scope not in SCOPES:
            raise PacelineError(f"moe: there is no scope {scope!r}; scopes are {', '.join(SCOPES)}.")
        self.d_model, self.hidden, self.experts, self.top = d_model, hidden, experts, top
        self.balance, self.scope = float(balance), scope
        self.router = nn.Linear(d_model, experts, bias=False)
        self.inner = nn.Parameter(torch.empty(experts, 2 * hidden, d_model))
        self.outer = nn.Parameter(torch.empty(experts, d_model, hidden))
        for weight in (self.inner, self.outer):  # each expert as SwiGLU's own layers
            nn.init.uniform_(weight, -(weight.shape[-1] ** -0.5), weight.shape[-1] ** -0.5)
        self.use: Tensor | None = None
        """How often each sequence chose each expert in the last run: (sequences, E)."""
        self._counts: Tensor | None = None
        self._loss: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loss": None}  # what hangs on a graph cannot be copied

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Each token on its own; same shape."""
        rows = x.reshape(-1, self.d_model)
        probabilities = self.route(rows)
        weights, chosen = probabilities.topk(self.top, dim=-1)
        if self.top > 1:
            weights = weights / weights.sum(-1, keepdim=True)
        self._take_stock(probabilities, chosen, x.shape[-2] if x.ndim > 1 else 1)
        return self._dispatch(rows, weights, chosen).view(x.shape)

    def route(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n experts"]:
        """The router's probabilities p, in float32 at least, under autocast too: they decide."""
        dtype = torch.promote_types(rows.dtype, torch.float32)
        with torch.autocast(rows.device.type, enabled=False):
            return functional.linear(rows.to(dtype), self.router.weight.to(dtype)).softmax(dim=-1)

    def begin_step(self) -> None:
        """From here to the next call, passes belong to one optimizer step. Never called, each is a step of its own."""
        self._counts = torch.zeros(1, self.experts, dtype=torch.long, device=self.router.weight.device)

    def auxiliary_loss(self) -> Float[Tensor, ""]:
        """`balance` times the load-balancing loss of the last run in training; 0 before there is one."""
        return self.router.weight.new_zeros(()) if self._loss is None else self.balance * self._loss

    def meters(self) -> dict[str, float]:
        """`balance`: entropy of the experts' use in the last run over log E, so 1 where all are used alike."""
        if self.use is None or self.experts == 1:
            return {}
        shares = self.use.sum(0) / self.use.sum()
        return {"balance": min(1.0, torch.special.entr(shares).sum().item() / math.log(self.experts))}

    def flops(self, batch: int, length: int) -> int:
        """Forward multiply-adds x 2 of the matrix products."""
        return 2 * batch * length * self.d_model * (self.experts + 3 * self.top * self.hidden)

    def count(self, use: Int[Tensor, "sequences experts"]) -> Int[Tensor, "groups experts"]:
        """What f counts, for each sequence or for all; in scope `global`, all processes must call this together."""
        if self.scope == "sequence":
            return use
        counts = use.sum(0, keepdim=True)
        if self.scope == "global":
            if distributed.is_available() and distributed.is_initialized():
                distributed.all_reduce(counts)
            if self._counts is not None:
                counts = self._counts = self._counts + counts
        return counts

    def _take_stock(self, probabilities: Tensor, chosen: Tensor, length: int) -> None:
        """Count the choices, and in training keep the load-balancing loss."""
        sequences = len(chosen) // max(length, 1)
        numbers = torch.arange(len(chosen), device=chosen.device).unsqueeze(1) // max(length, 1)
        flat = (numbers * self.experts + chosen).flatten()
        self.use = flat.bincount(minlength=sequences * self.experts).view(sequences, self.experts)
        self._loss = None
        if self.training and torch.is_grad_enabled():
            counts = self.count(self.use).to(probabilities.dtype)
            shares = counts / counts.sum(1, keepdim=True)
            means = probabilities.view(len(shares), -1, self.experts).mean(1)
            self._loss = self.experts * (shares * means).sum(1).mean()

    def _dispatch(self, rows: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Sort by expert, one product per expert on its own rows, and back; embeddings are gathers, fast backwards."""
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        parts = functional.embedding(order // self.top, rows).split(flat.bincount(minlength=self.experts).tolist())
        done = []
        for part, inner, outer in zip(parts, self.inner.unbind(), self.outer.unbind(), strict=True):
            gate, value = functional.linear(part, inner).chunk(2, dim=-1)
            done.append(functional.linear(functional.silu(gate) * value, outer))
        back = functional.embedding(order.argsort(), torch.cat(done)).view(*chosen.shape, self.d_model)
        return (back * weights.unsqueeze(-1).to(back.dtype)).sum(1).to(rows.dtype)


def naive_moe(part: MoE, x: Tensor) -> Tensor:
    """The mixture plainly, token by token, for x (n, d)."""
    y = []
    for token in x:
        scores = (part.router.weight @ token).exp()
        scores = scores / scores.sum()
        best = sorted(range(part.experts), key=lambda e: -scores[e].item())[: part.top]
        total = sum(scores[e] for e in best) if part.top > 1 else 1.0
        out = torch.zeros_like(token)
        for e in best:
            gate, value = (part.inner[e] @ token).chunk(2)
            out = out + scores[e] / total * (part.outer[e] @ (gate * gate.sigmoid() * value))
        y.append(out)
    return torch.stack(y)


def example() -> MoE:
    """The smallest instance for the contract tests."""
    return MoE(8, 12, experts=3, top=2)
