"""TokenSelect on SmolLM2: do single tokens that the heads vote for hold what will be asked?

The tasks and the protocol are those of Quest's claim: facts hidden in 2,048 or 4,096 tokens, the question unknown until
it is fed token by token. TokenSelect reads 128 tokens a step, 3 to 6 % of the cache, for all heads the same, of which 8
are the first and 32 the last. Quest reads 128 tokens for each query head; that is the paper's comparison, at an equal
number of tokens. To vote TokenSelect also looks at all keys, half of the cache's bytes: another Quest, and sinks with a
window, are given as many bytes as a step that votes. The sham reads as many tokens between first and last, at random;
its votes are held as often. A contestant that votes at every step shows what holding the votes costs.

Bars are a tenth of the 3.3 bits that it costs to guess a digit. Sizes and bars are from pilots on seeds 1000, 1001,
1003 and 1006: TokenSelect took 0.3, 0.8, 0.4 and 0.5 bits an answer token, the full cache 0.4, 0.5, 0.6 and 0.2, always
voting 0.2 on the last; pages of 8 served Quest better than the authors' 16; a tenth to a fifth of the votes were held.
A threshold of 0.7 held seven tenths of them and lost answers. As votes are held, TokenSelect read 0.47 of the cache's
bytes on average, Quest and sinks 0.55.
"""

from pathlib import Path

import torch
from torch import Tensor

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._measured import Measured
from paceline.claims._pretrained import TINY
from paceline.claims._recall import hidden
from paceline.claims._retrieval import ALL, Haystacks
from paceline.context._contract import Place, Policy
from paceline.context.full import Full
from paceline.context.quest import Quest
from paceline.context.sinks import Sinks
from paceline.context.tokenselect import TokenSelect
from paceline.core.tolerances import close
from paceline.lm.huggingface.llama import Llama
from paceline.race.contestant import Event, Job, Outcome, Report

CLAIM = (
    "Reading 128 of 2,048 to 4,096 tokens a step, TokenSelect answers questions about hidden facts, not known when it "
    "read them, by more than 0.33 bits per answer token better than Quest with 128 tokens a query head, and than sinks "
    "with a window that hold as many bytes as a step reads; and at most 0.33 bits worse than the full cache, than "
    "Quest that reads as many bytes, and than itself voting at every step instead of holding votes."
)
SEEDS = range(8, 56)
"""A first run, on seeds 0 to 7 with two questions each, left every bar open. These are the second's, with all questions
that a context has, fixed before it with the bars unchanged."""
METHOD, FULL, BLOCKS, MORE, WINDOW = "tokenselect", "full", "quest", "quest, equal bytes", "sinks, equal bytes"
VOTING, SHAM = "tokenselect, always voting", "tokenselect, random tokens"


class RandomTokens(TokenSelect):
    """The sham: any tokens between the first and the last."""

    def _score(self, q: Tensor, keys: Tensor) -> Tensor:
        return torch.rand(len(q), keys.shape[2])


def choose(how: str, lm: Llama, tokens: int) -> Policy:
    """What a contestant does."""
    small = lm.depth < 3
    budget, sinks, local, page, dense = (32, 2, 8, 4, 0) if small else (128, 8, 32, 8, 2)
    if how in (METHOD, SHAM, VOTING):
        kind = RandomTokens if how == SHAM else TokenSelect
        return kind(budget, sinks, local, 2.0 if how == VOTING else 0.9)
    voting = tokens // 2 + budget
    sparse = (voting - tokens * dense / lm.depth) / (1 - dense / lm.depth) - tokens / page
    more = max(2, round(sparse * lm.groups / lm.heads / page)) * page
    return {FULL: Full(), BLOCKS: Quest(page, budget, dense), MORE: Quest(page, more, dense), WINDOW: Sinks(voting)}[
        how
    ]


def run(job: Job, how: str, report: Report) -> Outcome:
    """Measure one contestant."""
    return hidden(job, lambda lm, tokens: choose(how, lm, tokens), report)


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    task = {
        "smoke": Haystacks(TINY, (1_024,), ALL),
        "cpu": Haystacks("smollm2", (2_048, 2_048, 4_096), ALL),
        "gpu": Haystacks("smollm2", (4_096, 6_144, 8_000), ALL),
    }[budget]
    names = (METHOD, WINDOW, FULL, BLOCKS, MORE, VOTING, SHAM)  # the window reads by itself, beside the first
    return Design(
        contestants=[Measured(name, run, name, Haystacks) for name in names],
        events=[Event(task, 0, 134_515_008, 1)],
        seeds=SEEDS if budget == "cpu" else {"smoke": 1, "gpu": 64}[budget],
        bars=[
            Bar("recall", METHOD, FULL, by=-0.33),
            Bar("recall", METHOD, BLOCKS, by=0.33),
            Bar("recall", METHOD, MORE, by=-0.33),
            Bar("recall", METHOD, WINDOW, by=0.33),
            Bar("recall", METHOD, VOTING, by=-0.33),
        ],
        shams=[Bar("recall", METHOD, SHAM)],
        meter="reused",
        limits="One model of 135 million parameters with 4-bit weights and at most 4,096 tokens: the paper reads up to "
        "a million with positions turned anew, which this part leaves as they are, and its speed needs kernels.",
    )


def faithful() -> bool:
    """Whether a step equals the paper's vote taken a head and a token at a time, and a like query holds the vote."""
    policy = TokenSelect(9, 2, 3)
    k, v, q = (waves(step, groups, length) for step, groups, length in ((0.3, 2, 30), (0.7, 2, 30), (1.1, 4, 1)))
    past = policy.attend(waves(0.9, 4, 29), k[:, :, :-1], v[:, :, :-1], policy.empty(1, 2, 5, k), Place(0, 1, 0))[1]
    out, memory = policy.attend(q, k[:, :, -1:], v[:, :, -1:], past, Place(0, 1, 29))
    same = [close(out, naive(q, k, v, 9, 2, 3), torch.float64), policy.meters()["reused"] == 0]
    for query, held in ((1.5 * q, 1), (waves(1.3, 4, 1), 0)):  # a longer one in the same direction, and another
        _, after = policy.attend(query, k[:, :, -1:], v[:, :, -1:], memory, Place(0, 1, 30))
        same += [policy.meters()["reused"] == held, torch.equal(after["voted"], memory["voted"]) == held]
    return all(same)


def waves(step: float, heads: int, length: int) -> Tensor:
    """Sine waves of rising pitch (1, heads, length, 5)."""
    return (torch.arange(heads * length * 5, dtype=torch.float64).square() * step).sin().view(1, heads, length, 5)


def naive(q: Tensor, k: Tensor, v: Tensor, tokens: int, sinks: int, local: int) -> Tensor:
    """Attention of each head to the first tokens, the last, and those between of the most votes."""
    held = k.shape[2]
    middle = range(sinks, held - local)
    votes = dict.fromkeys(middle, 0.0)
    for head, query in enumerate(q[0, :, 0]):
        chances = [float((k[0, head // 2, i] @ query).exp()) for i in middle]
        for i, chance in zip(middle, chances, strict=True):
            votes[i] += chance / sum(chances)
    best = sorted(middle, key=lambda i: -votes[i])[: tokens - sinks - local]
    seen = [i for i in range(held) if i < sinks or i >= held - local or i in best]
    outs = [
        (k[0, head // 2, seen] @ query * len(query) ** -0.5).softmax(0) @ v[0, head // 2, seen]
        for head, query in enumerate(q[0, :, 0])
    ]
    return torch.stack(outs)[None, :, None]
