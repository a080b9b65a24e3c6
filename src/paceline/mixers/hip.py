"""Hierarchically pruned attention (HiP): a tree search finds, for every block of queries, the k keys to attend to.

For a block of `block_q` queries, the keys between the sinks and the window are n blocks of `block_k` keys:

    nodes = n split into m = k / block_k runs of blocks
    repeat ceil(log2(n / m)) times:
        split every node into halves;  the representative of a node is its central block of keys
        score of a node = max over the block's leading queries l and the representative's keys r of l . r
        nodes = the m nodes with the highest scores                              at last every node is one block
    o_i = sum_j softmax_j(q_i . k_j / sqrt(s)) v_j   over the `sinks` first keys, the chosen k, the `window` keys before
                                                     the block, and the block's own keys j <= i

Each head searches for itself. Blocks that have no more than k keys to choose from take all: up to there HiP is full
attention, and is computed as such. Time O(t log t): t k / block_q log2(t / k) representatives and t (k + window) pairs.
Memory O(t), as query blocks are taken a few at a time. State: all keys and values, as of attention, and the queries of
two blocks at most.

Departures. The authors score by the block's own queries, so that what a token reads depends on the tokens after it; the
contract here is causal, and the leading queries of a block are its first and the `block_q` - 1 before it (every
`stride_q`-th of them, as the authors' stride). The window and the sinks are whole blocks. Key blocks are larger than
the authors' 2 keys and scored by every `stride_k`-th key, which makes long copies and large products on a CPU. Keys
and values are not offloaded, and masks are not kept for the next steps of decoding: those serve a GPU's memory.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.mixers._contract import Flops, Mixer, MixerState
from paceline.mixers._hip import Pruning, hip_attention, work
from paceline.mixers.attention import Attention

PAPERS = (
    Paper(
        title="HiP Attention: Sparse Sub-Quadratic Attention with Hierarchical Attention Pruning",
        arxiv="2406.09827",
        year=2024,
        says="A tree search over key blocks finds the keys worth attending to in O(t log t), without training.",
    ),
)


class HiP(Mixer):
    """Causal softmax attention whose queries read chosen keys only.

    Args:
        d_model: width d, a multiple of `heads`.
        heads: query heads.
        kv_heads: key and value heads, a divisor of `heads`. Default: `heads`.
        rotary: turn queries and keys by their positions.
        keys: see `Pruning`, as for all that follow.

    Raises:
        PacelineError: sizes that do not divide, or are out of range.
    """

    def __init__(
        self,
        d_model: int,
        heads: int = 4,
        kv_heads: int | None = None,
        rotary: bool = True,
        keys: int = 512,
        window: int = 256,
        sinks: int = 16,
        block_q: int = 64,
        block_k: int = 16,
        stride_q: int = 2,
        stride_k: int = 4,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.sizes = Pruning(keys, window, sinks, block_q, block_k, stride_q, stride_k)
        self.attention = Attention(d_model, heads, kv_heads, rotary=rotary)
        self._share: float | None = None

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """See `Mixer.forward`."""
        return self._read(*self.attention._project(x, start=0), before=None)

    def initial_state(self, batch: int) -> MixerState:
        """No keys, no values, no queries; `position` (b,) counts the tokens seen."""
        state = self.attention.initial_state(batch)
        return state | {"q": state["k"].new_empty(batch, self.attention.heads, 0, self.attention.head_width)}

    def extend(self, x: Float[Tensor, "b t d"], state: MixerState) -> tuple[Float[Tensor, "b t d"], MixerState]:
        """See `Mixer.extend`."""
        q, k, v = self.attention._project(x, start=state["position"])
        k, v = torch.cat((state["k"], k), dim=2), torch.cat((state["v"], v), dim=2)
        y = self._read(q, k, v, before=state["q"])
        known = torch.cat((state["q"], q), dim=2).detach()
        known = known[:, :, known.shape[2] - self._kept(k.shape[2]) :].clone()  # a view would keep the others alive
        return y, {"k": k, "v": v, "position": state["position"] + x.shape[1], "q": known}

    def state_bytes(self, batch: int, length: int) -> int:
        """Keys and values of all tokens, the position, and the queries that may yet lead a block."""
        numbers = self.attention.heads * self._kept(length) * self.attention.head_width
        return self.attention.state_bytes(batch, length) + batch * numbers * self.attention.out.weight.element_size()

    def flops(self, batch: int, length: int) -> Flops:
        """Projections, attention as far as it is full, search, and attention to the chosen keys."""
        part, sizes = self.attention, self.sizes
        rows, split = batch * part.heads, min(length, sizes.dense)
        blocks = -(-(length - split) // sizes.block_q)
        queries = length - split if blocks == 1 else blocks * sizes.block_q
        searched = work(length, length, rows, part.head_width, sizes).scored * sizes.block_q // sizes.stride_q
        pairs = 2 * split * split + 2 * queries * sizes.attended + searched
        weights = part.qkv.weight.numel() + part.out.weight.numel()
        return Flops(2.0 * batch * length * weights + 2.0 * rows * part.head_width * pairs)

    def check_length(self, length: int) -> None:
        """Refuse sequences on which every key is attended.

        Raises:
            PacelineError: it would be full attention.
        """
        if length <= self.sizes.dense:
            raise PacelineError(
                f"hip: keys={self.sizes.keys} and window={self.sizes.window} cover all of {length} tokens, which is "
                "full attention: give fewer, such as hip(keys=64, window=32)."
            )

    def meters(self) -> dict[str, float]:
        """`attended`: of the pairs that full attention sees, those seen in the last run."""
        return {} if self._share is None else {"attended": self._share}

    def _kept(self, length: int) -> int:
        """How many queries before the next token belong to its block or to the one before."""
        return length - max(0, (length // self.sizes.block_q - 1) * self.sizes.block_q + 1)

    def _read(self, q: Tensor, k: Tensor, v: Tensor, before: Tensor | None) -> Tensor:
        mixed, did = hip_attention(q, k, v, self.sizes, before=before)
        self._share = did.attended / did.causal
        return self.attention._merge(mixed)


def naive_hip(part: HiP, x: Tensor) -> Tensor:
    """Head by head and block by block, with the tree as a list."""
    q, k, v = part.attention._project(x, start=0)
    groups = part.attention.heads // part.attention.kv_heads
    heads = [
        torch.stack(
            [_naive(*row, part.sizes) for row in zip(q[:, h], k[:, h // groups], v[:, h // groups], strict=True)]
        )
        for h in range(part.attention.heads)
    ]
    return part.attention._merge(torch.stack(heads, dim=1))


def _naive(q: Tensor, k: Tensor, v: Tensor, sizes: Pruning) -> Tensor:
    """(t, s) of one head."""
    outputs = []
    for i, query in enumerate(q):
        start = i // sizes.block_q * sizes.block_q
        free = range(sizes.sinks, max(sizes.sinks, start - sizes.window), sizes.block_k)  # first keys of the blocks
        if len(free) > (m := sizes.keys // sizes.block_k):
            leads = q[start - sizes.block_q + 1 : start + 1][sizes.stride_q - 1 :: sizes.stride_q]
            nodes = [free[len(free) * j // m : len(free) * (j + 1) // m] for j in range(m)]
            while any(len(node) > 1 for node in nodes):
                halves = [half for node in nodes for half in (node[: len(node) // 2], node[len(node) // 2 :]) if half]
                nodes = sorted(halves, key=lambda half: -_score(half, leads, k, sizes))[:m]
            chosen = [key for node in nodes for key in range(node[0], node[0] + sizes.block_k)]
        else:
            chosen = list(range(sizes.sinks, max(sizes.sinks, start - sizes.window)))
        near = range(max(0, start - sizes.window), i + 1)
        seen = sorted({*range(min(sizes.sinks, i + 1)), *chosen, *near})
        outputs.append((k[seen] @ query * q.shape[1] ** -0.5).softmax(dim=0) @ v[seen])
    return torch.stack(outputs)


def _score(node: range, leads: Tensor, k: Tensor, sizes: Pruning) -> float:
    """The best product of a leading query and a key of the node's central block."""
    first = node[len(node) // 2]
    keys = k[first : first + sizes.block_k][sizes.stride_k // 2 :: sizes.stride_k]
    return (leads @ keys.T).max().item()


def example() -> list[tuple[HiP, object]]:
    """Instances for the contract tests, each with its naive twin."""
    return [
        (HiP(8, heads=2, keys=4, window=4, sinks=2, block_q=4, block_k=2, stride_k=1), naive_hip),
        (HiP(8, kv_heads=2, rotary=False, keys=8, window=0, sinks=0, block_q=8, block_k=4, stride_k=2), naive_hip),
    ]
