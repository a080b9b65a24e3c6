"""Several continuations verified at once: a tree of guesses, each of which sees its own ancestors only.

The tree stands behind the last token in one pass; positions are depths, and a mask says who sees whom. What the pass
remembers of the accepted way is then put behind the past, the rest is dropped. It takes a model that lets positions and
masks be given and whose state is keys and values of all tokens, up to rotation by position: a Llama with a full cache.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.growing import Growing, append
from paceline.core.state import LM
from paceline.decode._contract import Run, read_counted
from paceline.decode._speculate import Draft


@dataclass(frozen=True)
class TreeDraft(Draft):
    """Guesses, of which each follows another; parents come before their children."""

    parents: list[int] = field(default_factory=list)
    """Of each guess; -1: it follows the last token."""

    def cut(self, room: int) -> "TreeDraft":
        """The guesses that have fewer than `room` ancestors: nothing where all have."""
        if max(self.depths(), default=0) <= room:
            return self
        kept = [index for index, depth in enumerate(self.depths()) if depth <= room]
        new = {old: index for index, old in enumerate(kept)} | {-1: -1}
        return TreeDraft([self.tokens[i] for i in kept], None, [new[self.parents[i]] for i in kept])

    def depths(self) -> list[int]:
        """1 for a guess of the next token, and so on."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return depths

    @property
    def chain(self) -> bool:
        """Whether each guess follows the one before."""
        return self.parents == list(range(-1, len(self.parents) - 1))


def reads_trees(lm: LM) -> bool:
    """Whether a tree can be read at once."""
    policy = getattr(lm, "policy", None)
    return bool(getattr(lm, "pads", False) and getattr(policy, "exact", False) and getattr(policy, "cuts", False))


def read_tree(run: Run, draft: TreeDraft) -> Float[Tensor, "t v"]:
    """Logits after the last token and after each guess; the run's state stays, what was read comes in `keep_way`."""
    count, past = len(draft.tokens) + 1, run.state.length
    sees = torch.zeros(count, past + count, dtype=torch.bool)
    sees[:, : past + 1] = True
    for index, parent in enumerate(draft.parents, 1):
        sees[index, past:] = sees[parent + 1, past:]
        sees[index, past + index] = True
    logits, state = read_counted(
        run.lm, torch.tensor([[run.ids[-1], *draft.tokens]]), run.state, run.counts,
        positions=torch.tensor([[past, *(past + depth for depth in draft.depths())]]), mask=sees[None, None],
    )  # fmt: skip
    run.counts.state_bytes = max(run.counts.state_bytes, state.nbytes)
    run.state = state
    return logits[0]


def keep_way(run: Run, past: int, way: list[int]) -> None:
    """Of a tree that was read behind `past` tokens, keep the last token and the guesses `way`, side by side."""
    if way == list(range(len(way))):
        run.state = run.state.rewind(run.state.length - past - 1 - len(way))
        return
    rows = torch.tensor([past, *(past + 1 + index for index in way)])
    picked = [{name: value.index_select(2, rows) for name, value in layer.items()} for layer in run.state.layers]
    run.state = before = run.state.rewind(run.state.length - past)  # so that the tree's place may be written to
    layers = tuple(
        {name: append(value, new[name]) for name, value in layer.items()}
        for layer, new in zip(before.layers, picked, strict=True)
    )
    run.state = Growing(layers, past + len(rows), of=before.of)
