"""Cross-entropy difference: the demonstration that a small model has learned most from, for the question at hand.

    M_i = the small model M, tuned on demonstration i alone        an adapter each, all trained in one batch
    CED_i(x) = H(x; M_i) - H(x; M)                                 nats per token of the question x, without its answer
    shown    = the k demonstrations of the lowest CED

A demonstration whose tuning makes the question likelier is held to be of the same kind, and to help in the prompt of
any model, an endpoint's too. H(x; M) is the same for all, so it moves no ranking; it says whether a demonstration
helps at all (below 0). With `clusters`, adapters are grown from so many random demonstrations, every demonstration goes
to the one under which it is likeliest, and one adapter is tuned on each cluster; a question picks a cluster.

Cost: tuning reads each demonstration `steps` times, forward and backward, once and for all (`_bank.py` keeps it); a
question of t tokens is one pass of the small model over (n + 1) t tokens, n of demonstrations or clusters.

Departures. The authors tune T0-3B by (IA)^3 as T-Few does, 20 epochs of one example at a rate of 3e-2; their readers of
data and the loss that they score are not in what they published. Here the small model is any causal LM that LoRA fits
and whose maps read the rows of a batch one by one. The loss is on the question and the answer, as a model that scores
questions must learn of questions, and the question alone is scored. How demonstrations are clustered follows summaries
of the paper; which member of a cluster is shown is ours: the one that its adapter finds likeliest.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.adapt.lora import LoRA
from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.lm.config import Config, build
from paceline.lm.open import Bytes
from paceline.prompt._bank import Bank, Scorer, scorer
from paceline.prompt._contract import Pipeline, Progress
from paceline.prompt._shots import TEMPLATE, Drawn, Nearest, Shots

__all__ = ["CED", "Drawn", "Nearest", "Scorer", "example", "scorer"]

PAPERS = (
    Paper(
        title="In-Context Demonstration Selection with Cross Entropy Difference",
        arxiv="2305.14726",
        year=2023,
        says="demonstrations chosen by small models tuned on them improve various larger ones",
    ),
)


class CED(Shots):
    """Chooses demonstrations by cross-entropy difference: `CED(pairs).run({"question": ...}, model)`.

    Args:
        demonstrations: pairs of a question and its answer.
        by: the small model, by its folder or known name, or made by `scorer`.
        clusters: how many share an adapter. Default: each demonstration has its own.
        steps: of tuning an adapter; a cluster's learns each of its texts at least once.
        rate: of learning.
        rank: of the adapters.
        targets: see `adapt.lora.LoRA`.
        folder: where adapters are kept from one run to the next. Default: in memory alone.
        longest: tokens of a text that the small model reads.
        k: how many are shown.
        template: how each is written; see `_shots.Template`.
        tokens: the most that the answer takes.
        stop: texts before which it ends.
        seed: of the demonstrations that clusters grow from, and of the sham.
        sham: whether adapters are shuffled among the demonstrations, which leaves everything but the choice's sense.

    Raises:
        PacelineError: as `Shots`; a small model without weights, such as an endpoint; or more clusters than there are
            demonstrations.
    """

    def __init__(
        self,
        demonstrations: Sequence[tuple[str, str]],
        by: str | Scorer = "smollm2",
        clusters: int = 0,
        steps: int = 4,
        rate: float = 1e-3,
        rank: int = 4,
        targets: tuple[str, ...] = (),
        folder: str | Path | None = None,
        longest: int = 256,
        k: int = 1,
        template: str = TEMPLATE,
        tokens: int = 48,
        stop: Sequence[str] = ("\n",),
        seed: int = 0,
        sham: bool = False,
    ) -> None:
        super().__init__(demonstrations, k, template, tokens, stop)
        if not 0 <= clusters <= len(self.demonstrations):
            raise PacelineError(
                f"There cannot be {clusters} clusters of {len(self.demonstrations)} demonstrations: take fewer."
            )
        self.scorer = scorer(by) if isinstance(by, str) else by
        self.clusters, self.seed, self.sham = clusters, seed, sham
        self._settings = (LoRA(rank, 4.0 * rank, targets, 0.5 if not targets else 0.0), steps, rate, longest)
        self._folder = None if folder is None else Path(folder)
        self._texts = [self.template.shown(*pair) for pair in self.demonstrations]
        self._bank: Bank | None = None
        self._members: list[list[int]] = []
        """Demonstrations of each adapter, those that are shown first being first."""
        self._ready = False
        self._meters: dict[str, float] = {}

    def prepare(self, progress: Progress | None = None) -> Bank:
        """See `Pipeline.prepare`: tunes adapters. It may be interrupted: what is in `folder` stays."""
        if self._bank is None:
            self._members = self._clustered(progress) if self.clusters else [[n] for n in range(len(self._texts))]
            self._bank = self._made(self._members)
        if not self._ready:
            self._bank.prepare(progress)
            if self.clusters:
                self._sort(self._bank.costs(self._texts))
            self._ready = True
        return self._bank

    def differences(self, questions: Sequence[str]) -> Float[Tensor, "q n"]:
        """CED of each demonstration for each question, in nats per token; below 0 where tuning on it helped."""
        bank = self.prepare()
        costs = bank.costs([self.template.asked(question) for question in questions])
        found = costs[:, :-1] - costs[:, -1:]
        self._meters = {
            "helped": (found < 0).float().mean().item(),
            "gain": -found.min(dim=1).values.mean().item(),
            "adapters_trained": float(bank.trained),
            "tokens_read": float(bank.tokens),
        }
        order = list(range(len(bank)))
        if self.sham:
            random.Random(derive(self.seed, "sham")).shuffle(order)
        spread = torch.empty(len(questions), len(self._texts))
        for members, adapter in zip(self._members, order, strict=True):
            spread[:, members] = found[:, [adapter]]
        return spread

    def rank(self, question: str) -> list[int]:
        """See `Shots.rank`."""
        return self.rank_each([question])[0]

    def rank_each(self, questions: Sequence[str]) -> list[list[int]]:
        """As `rank`, of several questions in few passes."""
        rows = self.differences(questions).tolist()
        order = [number for members in self._members for number in members]
        return [sorted(order, key=row.__getitem__) for row in rows]

    def meters(self) -> dict[str, float]:
        """Of the last questions: `helped`, the share of adapters under which they cost less than without; `gain`, what
        the best adapter saved, in nats per token; and the adapters trained and tokens read since this was made."""
        return dict(self._meters)

    def _made(self, members: Sequence[Sequence[int]]) -> Bank:
        adapter, steps, rate, longest = self._settings
        groups = [[self._texts[number] for number in group] for group in members]
        return Bank(self.scorer, groups, adapter, steps, rate, longest, self._folder)

    def _sort(self, costs: Float[Tensor, "n m"]) -> None:
        for adapter, members in enumerate(self._members):
            members.sort(key=lambda number: (float(costs[number, adapter]), number))

    def _clustered(self, progress: Progress | None) -> list[list[int]]:
        """Demonstrations by the random one whose adapter likes them best; clusters without any are left out."""
        draw = random.Random(derive(self.seed, "clusters"))
        bank = self._made([[number] for number in sorted(draw.sample(range(len(self._texts)), self.clusters))])
        bank.prepare(progress)
        nearest = bank.costs(self._texts)[:, :-1].argmin(dim=1).tolist()
        found = [[n for n, adapter in enumerate(nearest) if adapter == own] for own in range(self.clusters)]
        return [members for members in found if members]


def example() -> list[tuple[Pipeline, dict[str, str]]]:
    """An adapter for each of three demonstrations, and for two clusters of them, of a model that reads bytes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(Config(256, 16, 16, ("attention(heads=2)",), "text")).eval()
    small = Scorer("tiny", model, model, Bytes())
    shown = (("ab ab", "ba"), ("12 12", "21"), ("cd cd", "dc"))
    return [
        (CED(shown, small, clusters, steps=2, rank=1, tokens=4, stop=()), {"question": "34 34"}) for clusters in (0, 2)
    ]
