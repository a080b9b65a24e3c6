"""Quest: its bound holds, its pages are those of the authors' formula, and a step touches nothing else."""

import pytest
import torch
from _lms import lean
from hypothesis import given
from hypothesis import strategies as st

from paceline.context._contract import Place, read
from paceline.context.quest import Quest, bound
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.decode.lookup import Lookup

PAGE = 3
NEXT = Place(0, 1, 0)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def after(policy: Quest, k: torch.Tensor, v: torch.Tensor):
    q = torch.zeros(k.shape[0], 4, k.shape[2], k.shape[3], dtype=k.dtype)
    return policy.attend(q, k, v, policy.empty(len(k), k.shape[1], k.shape[3], k), NEXT)[1]


@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([0.01, 1.0, 100.0]))
def test_no_key_scores_above_its_pages_bound(seed: int, pages: int, scale: float) -> None:
    k, q = scale * draw(seed, 2, 2, pages * PAGE, 5), draw(seed + 1, 2, 4, 1, 5)
    bounds = after(Quest(PAGE, 6, 0), k, k)["bounds"]
    true = (q @ k.repeat_interleave(2, dim=1).transpose(2, 3)).unflatten(3, (pages, PAGE)).amax(4)
    assert (bound(q, bounds) >= true - 1e-12 * scale).all()


def test_the_bound_is_reached_where_a_page_is_one_token() -> None:
    k, q = draw(0, 1, 2, 7, 5), draw(1, 1, 4, 1, 5)
    bounds = after(Quest(1, 2, 0), k, k)["bounds"]
    assert close(bound(q, bounds), q @ k.repeat_interleave(2, dim=1).transpose(2, 3), torch.float64)


def naive(q, k, v, page, count):
    """One query head at a time, by the sum over channels of the larger of both products."""
    out = torch.empty_like(q)
    last = (k.shape[2] - 1) // page
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            query, keys, values = q[row, head, 0], k[row, head // 2], v[row, head // 2]
            scores = []
            for start in range(0, last * page, page):
                part = keys[start : start + page]
                scores.append(torch.maximum(query * part.amin(0), query * part.amax(0)).sum())
            best = torch.stack(scores).topk(count - 1).indices.tolist()
            seen = torch.cat([torch.arange(len(keys))[p * page : (p + 1) * page] for p in (*best, last)])
            weights = (keys[seen] @ query * query.shape[0] ** -0.5).softmax(0)
            out[row, head, 0] = weights @ values[seen]
    return out


@pytest.mark.parametrize("held", [13, 14, 15, 16, 40])
def test_a_step_reads_the_pages_of_the_highest_bound(held: int) -> None:
    policy = Quest(PAGE, 9, 0)
    k, v, q = draw(2, 2, 2, held, 5), draw(3, 2, 2, held, 5), draw(4, 2, 4, 1, 5)
    memory = after(policy, k[:, :, :-1], v[:, :, :-1])
    out, _ = policy.attend(q, k[:, :, -1:], v[:, :, -1:], memory, NEXT)
    assert close(out, naive(q, k, v, PAGE, 3), torch.float64)
    assert not close(out, read(q, k, v), torch.float64)


@pytest.mark.parametrize("held", [13, 15, 40])
def test_heads_that_share_keys_read_the_pages_of_the_highest_sum(held: int) -> None:
    """As if both query heads of a key head were one of twice the width, in the choice; each reads for itself."""
    policy = Quest(PAGE, 9, 0, together=True)
    k, v, q = draw(2, 2, 2, held, 5), draw(3, 2, 2, held, 5), draw(4, 2, 4, 1, 5)
    memory = after(policy, k[:, :, :-1], v[:, :, :-1])
    out, _ = policy.attend(q, k[:, :, -1:], v[:, :, -1:], memory, NEXT)
    expected = torch.empty_like(q)
    last = (held - 1) // PAGE
    for row in range(2):
        for group in range(2):
            pages = [k[row, group, start : start + PAGE] for start in range(0, last * PAGE, PAGE)]
            heads = [2 * group, 2 * group + 1]
            scores = [
                sum(torch.maximum(q[row, h, 0] * p.amin(0), q[row, h, 0] * p.amax(0)).sum() for h in heads)
                for p in pages
            ]
            best = torch.stack(scores).topk(2).indices.tolist()
            seen = torch.cat([torch.arange(held)[p * PAGE : (p + 1) * PAGE] for p in (*best, last)])
            for h in heads:
                weights = (k[row, group, seen] @ q[row, h, 0] * 5**-0.5).softmax(0)
                expected[row, h, 0] = weights @ v[row, group, seen]
    assert close(out, expected, torch.float64)


def test_a_step_touches_the_chosen_pages_alone() -> None:
    """Keys and values elsewhere may be anything."""
    policy = Quest(4, 8, 0)
    k, v, q = draw(5, 1, 1, 32, 6), draw(6, 1, 1, 32, 6), draw(7, 1, 2, 1, 6)
    k[:, :, 12:16] = 9 * q[:, :1]
    q = q[:, :1].expand(-1, 2, -1, -1)
    memory = dict(after(policy, k, v))
    new_k, new_v = draw(8, 1, 1, 1, 6), draw(9, 1, 1, 1, 6)
    expected, _ = policy.attend(q, new_k, new_v, memory, NEXT)
    damaged = {"k": k.clone(), "v": v.clone(), "bounds": memory["bounds"]}
    for name in "kv":
        damaged[name][:, :, :12] = torch.nan
        damaged[name][:, :, 16:29] = torch.nan  # the last four tokens are read, some of them for nothing
    out, _ = policy.attend(q, new_k, new_v, damaged, NEXT)
    assert torch.equal(out, expected) and out.isfinite().all()


@pytest.mark.parametrize("sizes", [[20, 4, 3, 2, 1], [2, 4, 4, 4, 4, 4, 4, 4]])
def test_reads_of_a_block_are_as_its_steps(sizes: list[int]) -> None:
    lm = lean("llama").under(Quest(2, 6, 1, block=4))
    ids = torch.randint(11, (2, 30), generator=torch.Generator().manual_seed(0))
    state, steps = lm(ids[:, : sizes[0]], None)[1], []
    start = state
    for i in range(sizes[0], 30):
        logits, state = lm(ids[:, i : i + 1], state)
        steps.append(logits)
    blocks = []
    for piece in ids[:, sizes[0] :].split(sizes[1:], dim=1):
        logits, start = lm(piece, start)
        blocks.append(logits)
    assert close(torch.cat(blocks, 1), torch.cat(steps, 1), torch.float64)


def test_speculation_is_lossless_within_a_block() -> None:
    lm = lean("llama").under(Quest(2, 6, 0, block=16))
    prompt = [3, 1, 4, 1, 5, 2, 6, 5, 3, 1, 4] * 2
    expected = generate(lm, prompt, Greedy(), 30).all()
    stream = generate(lm, prompt, Lookup(), 30)
    assert stream.all() == expected and stream.counts.drafted > 0


def test_the_share_read_is_what_the_sizes_say() -> None:
    policy = Quest(4, 8, 1)
    k = draw(0, 1, 2, 100, 5)
    memory = after(policy, k, k)
    policy.attend(draw(1, 1, 2, 1, 5), k[:, :, :1], k[:, :, :1], memory, Place(0, 2, 100))  # a dense layer
    memory = Quest(4, 8, 0).attend(draw(1, 1, 2, 100, 5), k, k, policy.empty(1, 2, 5, k), NEXT)[1]
    policy.attend(draw(1, 1, 2, 1, 5), k[:, :, :1], k[:, :, :1], memory, Place(1, 2, 100))
    assert policy.meters()["read"] == pytest.approx((101 + 8 + 25) / 202)


def test_nonsense_is_refused() -> None:
    with pytest.raises(PacelineError, match="two pages"):
        Quest(16, 31)
    with pytest.raises(PacelineError, match="page must be"):
        Quest(0)
