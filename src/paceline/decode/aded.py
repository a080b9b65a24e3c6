"""ADED: a table of tri-grams that learns from the text being made proposes trees of continuations, verified at once.

    w(c | a, b) += 0.04 for each token read, p(c | text) 0.04 for the `top` likeliest tokens after each verified one

and a Monte Carlo tree search over w, weighing visited against untried branches, makes the draft (`_trigrams.py`, with
the authors' constants). The model reads the tree in one pass (`_tree.py`), or its most visited way where it cannot read
trees. At each node a token is drawn from the model's own distribution, and the walk goes on where the tree has it: so
each token is the model's, in distribution and, under greedy choice, token for token. No draft model and no training;
the table lives in the strategy, and a stream of prompts makes it better.

The authors begin with a table of a large corpus; ours begins with the prompt, or with texts given to `learn_texts`.
`top=0` is theirs, and drafts better in our pilots. At every search they add 0.04 for each of the last 16 tokens anew,
so that a tri-gram counts many times; here once. They search 150 rounds, in compiled code.
"""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.card import Paper
from paceline.core.state import LM
from paceline.decode._choice import Choice
from paceline.decode._contract import Run, Strategy
from paceline.decode._speculate import Draft, Speculation, at_least_one
from paceline.decode._tree import TreeDraft, keep_way, read_tree, reads_trees
from paceline.decode._trigrams import Trigrams, likeliest, most_visited, search

PAPERS = (
    Paper(
        title="Adaptive Draft-Verification for Efficient Large Language Model Decoding",
        arxiv="2407.12021",
        year=2024,
        says="Drafts searched from a tri-gram table that is updated while decoding are accepted more often than those "
        "of a fixed table, with no training and no second model.",
    ),
)


class ADED(Speculation):
    """Speculation by a tri-gram table that adapts.

    Args:
        guesses: guesses of a tree, or of a chain where the model cannot read trees (then `depth` at most).
        depth: guesses one after the other.
        iterations: rounds of the search.
        top: likeliest tokens that are learnt from each verified place by their probability; 0: the chosen token alone.
        adapt: whether the table learns; otherwise it is what `learn_texts` and the prompts made it.
        temperature: of the choice; 0 is greedy. So are `top_k` and `top_p` of the choice.
        patience: refused drafts in a row before a pause.

    Raises:
        PacelineError: a number below its range.
    """

    def __init__(
        self, guesses: int = 16, depth: int = 4, iterations: int = 48, top: int = 0, adapt: bool = True,
        temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, patience: int = 2,
    ) -> None:  # fmt: skip
        super().__init__(Choice(temperature, top_k, top_p), patience)
        at_least_one(guesses=guesses, depth=depth, iterations=iterations)
        self.guesses, self.depth, self.iterations, self.top, self.adapt = guesses, depth, iterations, max(top, 0), adapt
        self.keep = max(guesses, depth) + 1
        self.table = Trigrams()

    def read(self, run: Run, draft: Draft) -> Float[Tensor, "t v"]:
        """See `Speculation.read`; trees where there are any."""
        if isinstance(draft, TreeDraft) and not draft.chain:
            return read_tree(run, draft)
        return super().read(run, draft)

    def learn_texts(self, texts: Sequence[Sequence[int]]) -> None:
        """Begin with what follows what in these texts, as token numbers."""
        for ids in texts:
            self.table.read(ids)

    def begin(self, run: Run) -> None:
        """See `Speculation.begin`."""
        self._trees = reads_trees(run.lm)
        self._chance = random.Random(int(torch.randint(2**31, (), generator=run.draws)))
        self.table.read(run.ids)

    def draft(self, run: Run, room: int) -> Draft:
        """See `Speculation.draft`."""
        if len(run.ids) < 2:
            return Draft([])
        depth = min(self.depth, room)
        root = search(self.table, (run.ids[-2], run.ids[-1]), depth, self.iterations, self._chance)
        if self._trees:
            tokens, parents = most_visited(root, self.guesses)
            return TreeDraft(tokens, None, parents)
        tokens = likeliest(root, min(depth, self.guesses), self.table)
        return TreeDraft(tokens, None, list(range(-1, len(tokens) - 1)))

    def judge(self, run: Run, draft: Draft) -> list[int]:
        """See `Speculation.judge`."""
        past = run.state.length
        parents = draft.parents if isinstance(draft, TreeDraft) else []
        logits = self.read(run, draft)
        children = {(parent, token): i for i, (parent, token) in enumerate(zip(parents, draft.tokens, strict=True))}
        node, way, kept = -1, list[int](), list[int]()
        while True:
            kept.append(int(self.choice.draw(logits[node + 1 : node + 2], run.draws)))
            found = children.get((node, kept[-1]))
            if found is None:
                break
            node = found
            way.append(node)
        if isinstance(draft, TreeDraft) and not draft.chain:
            keep_way(run, past, way)
        else:
            run.take_back(len(draft.tokens) - len(way))
        if self.adapt:
            self._learn([*run.ids, *kept], logits[[0, *(i + 1 for i in way)]])
        return kept

    def _learn(self, ids: list[int], logits: Float[Tensor, "k v"]) -> None:
        """The last k of `ids` were chosen by these logits."""
        first = len(ids) - len(logits)
        if not self.top:
            self.table.read(ids, first)
            return
        p, tokens = logits.double().softmax(-1).topk(min(self.top, logits.shape[-1]), dim=-1)
        for place, shares, likely in zip(range(first, len(ids)), p.tolist(), tokens.tolist(), strict=True):
            for share, token in zip(shares, likely, strict=True):
                if place > 1:
                    self.table.add((ids[place - 2], ids[place - 1]), token, share)


def example(lm: LM) -> list[Strategy]:
    """Greedy and drawn, with small trees."""
    return [
        ADED(guesses=6, depth=3, iterations=20, top=4),
        ADED(guesses=3, depth=3, iterations=6, top=0, temperature=0.9, top_p=0.9),
    ]
