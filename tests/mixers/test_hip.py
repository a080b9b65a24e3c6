"""Facts about HiP: full attention up to k, a hidden key is found, what is scored grows as t log t."""

import itertools
import math

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.mixers._hip import Pruning, hip_attention, tree_search, work
from paceline.mixers.attention import Attention
from paceline.mixers.hip import HiP

SIZES = Pruning(keys=32, window=16, sinks=4, block_q=8, block_k=4, stride_k=1)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rising(length):
    """Keys on a slow curve: neighbours are alike, as the search supposes."""
    angles = torch.arange(length, dtype=torch.float64).unsqueeze(1) * torch.tensor([1.0, 1.7, 2.9, 4.3]) / 40
    return torch.cat((angles.cos(), angles.sin()), dim=1).view(1, 1, length, 8)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_up_to_k_it_is_full_attention_and_beyond_it_is_not(kv_heads):
    torch.manual_seed(0)
    part = HiP(16, kv_heads=kv_heads, keys=16, window=8, sinks=4, block_q=4, block_k=4).double()
    x = draw(2, 60, 16)
    full = Attention(16, kv_heads=kv_heads).double()
    full.load_state_dict(part.attention.state_dict())
    assert part.sizes.dense == 32
    assert close(part(x[:, :32]), full(x[:, :32]), x.dtype) and part.meters() == {"attended": 1.0}
    assert close(part(x)[:, :32], full(x)[:, :32], x.dtype)
    assert not close(part(x)[:, 32:], full(x)[:, 32:], x.dtype) and 0.5 < part.meters()["attended"] < 1


@pytest.mark.parametrize("length", [40, 300])
def test_the_whole_search_is_full_attention_too(length):
    q, k, v = (draw(2, 2, length, 8, seed=i) for i in range(3))
    out, did = hip_attention(q, k, v, Pruning(keys=512))
    assert close(out, functional.scaled_dot_product_attention(q, k, v, is_causal=True), q.dtype)
    assert did.attended == did.causal == length * (length + 1) // 2 and did.scored == 0


@pytest.mark.parametrize("block", range(0, 64, 7))
def test_the_tree_descends_to_a_key_that_stands_out_with_its_neighbours(block):
    """Scores fall with the distance from one block, so that every node's representative points the way."""
    heights = -(torch.arange(64) - block).abs().double()
    keys = heights.view(1, 64, 1, 1).expand(1, 64, 2, 1)
    chosen = tree_search(torch.ones(1, 1, 1, 1).double(), keys, torch.tensor([64]), 8)
    expected = heights.topk(8).values.sum()
    assert block in chosen.flatten() and heights[chosen.flatten()].sum() == expected


def test_a_choice_is_of_different_blocks_within_those_that_there_are():
    leads, keys = draw(6, 3, 4, 8), draw(2, 50, 4, 8, seed=1)
    counts = torch.tensor([7, 33, 50])
    chosen = tree_search(leads, keys, counts, 6)
    assert chosen.shape == (6, 3, 6) and (chosen < counts.view(1, 3, 1)).all() and (chosen >= 0).all()
    assert all(len(row.unique()) == 6 for row in chosen.flatten(0, 1))


def test_what_is_scored_grows_as_t_log_t_and_what_is_attended_as_t():
    lengths = [2**n for n in range(10, 17)]
    did = [work(t, t, 4, 64, Pruning(keys=256)) for t in lengths]
    for t, one in zip(lengths, did, strict=True):
        bound = t / 64 * 2 * 256 / 4 * math.ceil(math.log2(t / 256))
        assert bound / 4 < one.scored <= bound
        assert one.attended <= t * Pruning(keys=256).attended
    doubled = [b.scored / a.scored for a, b in itertools.pairwise(did[3:])]
    assert all(2 < ratio < 2.7 for ratio in doubled) and doubled == sorted(doubled, reverse=True)


def test_the_declared_number_of_scored_keys_is_what_the_products_took():
    q, k = draw(1, 2, 500, 8), draw(1, 2, 500, 8, seed=1)
    total = 0

    def counted(leads, keys, counts, chosen):
        nonlocal total
        with FlopCounterMode(display=False) as counter:
            found = tree_search(leads, keys, counts, chosen)
        total += counter.get_total_flops() // (2 * leads[..., 0].shape[2] * leads.shape[3] * leads.shape[0])
        return found

    _, did = hip_attention(q, k, k, SIZES, select=counted)
    assert did.scored == total > 0


def test_it_keeps_more_of_the_attention_than_a_window_with_sinks_at_equal_budget():
    """Queries that look 200 tokens back along a slow curve."""
    length, back = 512, 200
    k = rising(length)
    q = 8 * torch.cat((k[:, :, :1].expand(-1, -1, back, -1), k[:, :, :-back]), dim=2)
    weights = (q @ k.transpose(2, 3) * 8**-0.5).masked_fill(~torch.ones(length, length).tril().bool(), -torch.inf)
    weights = weights.softmax(dim=-1)

    def kept(select):
        """The share of full attention that falls on what is attended, by values that tell keys apart."""
        seen, _ = hip_attention(q, k, torch.eye(length).double()[None, None], SIZES, scale=0.0, select=select)
        return (weights * (seen > 0)).sum(dim=-1)[0, 0, SIZES.dense + back :].mean().item()

    def recent(leads, keys, counts, chosen):
        return (counts.unsqueeze(1) - chosen + torch.arange(chosen)).expand(len(leads), -1, -1)

    assert kept(tree_search) > 0.8 > 0.3 > kept(recent)


def test_no_query_reads_more_than_its_budget():
    length = 200
    q, k = draw(1, 1, length, 8), draw(1, 1, length, 8, seed=1)
    seen, did = hip_attention(q, k, torch.eye(length).double()[None, None], SIZES, scale=0.0)
    read = (seen[0, 0] > 0).sum(dim=-1)
    assert read.sum() == did.attended and read[SIZES.dense :].max() == SIZES.attended
    assert torch.equal(seen[0, 0].triu(1), torch.zeros(length, length).double())


@pytest.mark.parametrize(
    "wrong",
    [{"keys": 30}, {"window": 3}, {"sinks": -16}, {"keys": 0}, {"stride_q": 3}, {"stride_k": 3}, {"block_q": 8}],
)
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(PacelineError, match="hip: "):
        HiP(8, **wrong)


def test_sequences_on_which_it_would_be_full_attention_are_refused():
    part = HiP(8, heads=2, keys=32, window=16, sinks=16)
    full = part.sizes.dense
    part.check_length(full + 1)
    with pytest.raises(PacelineError, match=f"cover all of {full} tokens, which is full attention"):
        part.check_length(full)
    part(torch.randn(1, full, 8))
    assert part.meters()["attended"] == 1.0
