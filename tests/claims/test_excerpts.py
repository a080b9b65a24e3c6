"""Facts about pretrained contestants: reading is billed, with the operations that the parts declare."""

import pytest
import torch
from torch import nn

from paceline.claims._pretrained import TINY, Excerpts, Pretrained, load
from paceline.claims.mixers import hip
from paceline.data._corpus import default_corpus
from paceline.mixers._hip import work
from paceline.mixers.attention import Attention
from paceline.mixers.hip import HiP
from paceline.race.contestant import Event, Job

LENGTH, ASKED, HEADS = 300, 100, 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The outcome of a change to the tiny model of two layers, on two excerpts."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("corpora")
    task = Excerpts(default_corpus(folder), TINY, LENGTH, ASKED)
    task.items = 2

    def go(change=None, seed=0):
        return Pretrained("any", TINY, change).run(Job(Event(task, 0, 1, 1), seed, 0.0, folder), lambda *_: None)

    return go


def test_what_was_read_is_billed_with_its_operations(run):
    bill, model = run().ledger, load(TINY)
    assert (bill.tokens, bill.model_calls) == (2 * LENGTH, 2) and bill.seconds > 0
    linear = sum(m.weight.numel() for m in model.model.modules() if isinstance(m, nn.Linear))
    head, width = model.lm_head.weight.numel(), model.config.hidden_size
    scores = 2 * 2 * LENGTH**2 * width  # the whole square, times keys and times values, in each of two layers
    assert bill.flops == 2 * 2 * (LENGTH * linear + (ASKED + 1) * head + scores)


def test_pruning_saves_what_the_mixer_declares_and_choosing_by_rule_the_search(run):
    sizes = hip.SMALL
    pruned = HiP(32, HEADS, 1, True, sizes.keys, sizes.window, sizes.sinks, sizes.block_q, sizes.block_k)
    full = Attention(32, HEADS, 1)
    saved = full.flops(1, LENGTH).total - pruned.flops(1, LENGTH).total
    flops = {change: run(change).ledger.flops for change in (None, hip.by_search, hip.by_recency, hip.by_chance)}
    assert flops[None] - flops[hip.by_search] == 2 * 2 * saved > 0  # excerpts, layers
    scored = work(LENGTH, LENGTH, HEADS, 16, sizes).scored * sizes.block_q // sizes.stride_q
    assert flops[hip.by_search] - flops[hip.by_recency] == 2 * 2 * 2 * HEADS * 16 * scored
    assert flops[hip.by_recency] == flops[hip.by_chance]


def test_chance_in_a_change_follows_the_seed(run):
    again, other = run(hip.by_chance), run(hip.by_chance, seed=1)
    torch.rand(1)
    assert run(hip.by_chance).items == again.items != other.items
