"""How well a model answers about what it has read, under a cache policy or a way to read prompts.

Two protocols. `hidden`: the context is read first, in one piece, and the policy does not know what will be asked;
question and answer follow token by token, as in Quest's own evaluation on pass keys, so that they are steps of
decoding. `shown`: the context and the question are one prompt, read anew for each question, and only the answer
follows. Answers are teacher-forced.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from paceline.claims._pretrained import UNCOUNTED
from paceline.claims._read_once import read_context, read_whole
from paceline.claims._retrieval import Haystacks, open_tiny_or
from paceline.context._contract import Policy
from paceline.context._reader import Reader
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.core.state import State
from paceline.lm.huggingface.llama import Llama
from paceline.race.contestant import Job, Outcome, Report

Choose = Callable[[Llama, int], Policy | Reader]
"""The policy, or the way to read, for a model and the tokens of the prompt."""


@torch.no_grad()
def hidden(job: Job, choose: Choose, report: Report) -> Outcome:
    """Measure a policy that does not know the question.

    Returns:
        Bits per answer token of each question. Meters: `right`, the share of answers of which every token was the
        most likely; `text_log2`, the mean log2 probability of the tokens by which the text goes on; `read`, of the
        bytes of all keys and values, the share that a step reads; those of the policy, averaged over the steps.
    """
    task = job.event.task
    assert isinstance(task, Haystacks)
    opened = open_tiny_or(task.model)
    item = task.drawn(job.seed, opened)
    base: Any = opened.lm
    policy = choose(base, len(item.context))
    assert isinstance(policy, Policy)
    lm, told = base.under(policy), Told()
    torch.manual_seed(derive(job.seed, "chance"))
    began = time.monotonic()
    start, flops = read_context(job, lm, item.context)
    for number, question in enumerate(item.questions):
        logits, state = _feed(lm, [*question.ids, *question.answer[:-1]], start, told, len(item.context))
        told.answer(logits[-len(question.answer) :], question.answer)
        report(number + 1, len(item.questions), told.items[-1])
    steps = sum(len(question.ids) + len(question.answer) - 1 for question in item.questions)
    if item.text:
        logits, state = _feed(lm, item.text[:-1], start, told, len(item.context))
        told.meters["text_log2"] = [-_bits(logits, item.text[1:])]
        steps += len(item.text) - 1
    return told.outcome(lm, len(item.context) + steps, flops, time.monotonic() - began, steps + 1, state)


@torch.no_grad()
def shown(job: Job, choose: Choose, report: Report) -> Outcome:
    """Measure a policy, or a way to read, that is given the question at the end of the prompt.

    Returns:
        As `hidden`, without `text_log2`; the ledger's operations are those of reading the prompts.
    """
    task = job.event.task
    assert isinstance(task, Haystacks)
    opened = open_tiny_or(task.model)
    item = task.drawn(job.seed, opened)
    base: Any = opened.lm
    told, flops, read, began = Told(), 0.0, 0, time.monotonic()
    torch.manual_seed(derive(job.seed, "chance"))
    for number, question in enumerate(item.questions):
        prompt = [*item.context, *question.ids]
        way = choose(base, len(prompt))
        lm = base.under(way) if isinstance(way, Policy) else base
        with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
            if isinstance(way, Reader):
                last, state = way.prepare(lm)(torch.tensor([prompt]), None)
            else:
                last, state = read_whole(lm, prompt)
        flops += counter.get_total_flops()
        told.note(way.meters())
        rest, state = _feed(lm, question.answer[:-1], state, told, len(prompt))
        told.answer(torch.cat((last[0, -1:], rest)), question.answer)
        read += len(prompt) + len(question.answer) - 1
        report(number + 1, len(item.questions), told.items[-1])
    return told.outcome(lm, read, flops, time.monotonic() - began, read, state)


class Told:
    """What has been measured so far."""

    def __init__(self) -> None:
        self.items: list[float] = []
        self.meters: dict[str, list[float]] = defaultdict(list)

    def answer(self, logits: Float[Tensor, "t v"], answer: Sequence[int]) -> None:
        """Take down an answer, given what was predicted of each of its tokens."""
        self.items.append(_bits(logits, answer))
        self.meters["right"].append(float(logits.argmax(-1).tolist() == list(answer)))

    def note(self, meters: dict[str, float]) -> None:
        """Take down a policy's meters."""
        for name, value in meters.items():
            self.meters[name].append(value)

    def outcome(self, lm: Llama, tokens: int, flops: float, seconds: float, calls: int, state: State) -> Outcome:
        """All of it."""
        parameters = sum(p.numel() for p in lm.parameters())
        bill = Ledger(tokens, flops, seconds, calls, parameters, state.nbytes)
        return Outcome(self.items, [], bill, {name: fmean(values) for name, values in self.meters.items()})


def _feed(lm: Llama, ids: Sequence[int], state: State, told: Told, before: int) -> tuple[Float[Tensor, "t v"], State]:
    """Logits after each of these tokens, read one by one after `before` others."""
    outs = []
    size = 2 * lm.depth * lm.groups * lm.width * lm.embedding.element_size()
    for length, token in enumerate(ids, before + 1):
        logits, state = lm(torch.tensor([[token]]), state)
        outs.append(logits[0])
        told.note({"read": state.nbytes / (size * length), **lm.policy.meters()})
    return torch.cat(outs), state


def _bits(logits: Float[Tensor, "t v"], tokens: Sequence[int]) -> float:
    """Bits per token."""
    return float(torch.nn.functional.cross_entropy(logits.float(), torch.tensor(list(tokens)))) / math.log(2)
