"""TokenSelect: the vote, what it touches, and when it is held."""

import pytest
import torch
from _lms import lean

from paceline.context._contract import Memory, Place
from paceline.context.tokenselect import TokenSelect
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close

NEXT = Place(0, 1, 0)
DTYPE = torch.float64


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=DTYPE, generator=torch.Generator().manual_seed(seed))


def after(policy: TokenSelect, k: torch.Tensor, v: torch.Tensor) -> Memory:
    q = torch.zeros(len(k), 4, k.shape[2], k.shape[3], dtype=DTYPE)
    return policy.attend(q, k, v, policy.empty(len(k), k.shape[1], k.shape[3], k), NEXT)[1]


def naive(q, k, v, tokens, sinks, local):
    out = torch.empty_like(q)
    for row in range(q.shape[0]):
        held = k.shape[2]
        votes = torch.zeros(held - sinks - local, dtype=DTYPE)
        for head in range(q.shape[1]):
            votes += (k[row, head // 2, sinks : held - local] @ q[row, head, 0]).softmax(0)
        best = votes.topk(tokens - sinks - local).indices + sinks
        seen = torch.cat((torch.arange(sinks), best, torch.arange(held - local, held)))
        for head in range(q.shape[1]):
            keys, values = k[row, head // 2, seen], v[row, head // 2, seen]
            out[row, head, 0] = (keys @ q[row, head, 0] * q.shape[3] ** -0.5).softmax(0) @ values
    return out


@pytest.mark.parametrize(("sinks", "local"), [(2, 3), (0, 1)])
def test_a_step_reads_what_the_heads_vote_for(sinks: int, local: int) -> None:
    policy = TokenSelect(9, sinks, local)
    k, v, q = draw(0, 2, 2, 30, 5), draw(1, 2, 2, 30, 5), draw(2, 2, 4, 1, 5)
    out, memory = policy.attend(q, k[:, :, -1:], v[:, :, -1:], after(policy, k[:, :, :-1], v[:, :, :-1]), NEXT)
    assert close(out, naive(q, k, v, 9, sinks, local), DTYPE)
    assert memory["voted"].shape == (2, 9 - sinks - local)
    assert policy.meters() == {"read": pytest.approx((9 + 15) / 30), "reused": 0.0}


def test_the_vote_is_held_while_queries_stay_alike_row_by_row() -> None:
    policy = TokenSelect(8, 1, 2, threshold=0.9)
    k, v, q = draw(3, 2, 2, 20, 5), draw(4, 2, 2, 20, 5), draw(5, 2, 4, 1, 5)
    new = draw(6, 2, 2, 1, 5)
    _, first = policy.attend(q, new, new, after(policy, k, v), NEXT)
    turned = torch.stack((1.7 * q[0], draw(7, 4, 1, 5)))  # the first as before but longer, the second another
    _, second = policy.attend(turned, new, new, first, NEXT)
    assert torch.equal(second["voted"][0], first["voted"][0]) and torch.equal(second["voter"][0], first["voter"][0])
    assert torch.equal(second["voter"][1], turned[1].flatten())
    assert not torch.equal(second["voted"][1], first["voted"][1])
    assert policy.meters()["reused"] == 0.5
    _, fresh = policy.attend(turned, new, new, {**first, "voter": q.new_empty(2, 0)}, NEXT)
    assert torch.equal(fresh["voted"][1], second["voted"][1])


def test_a_held_vote_touches_the_chosen_tokens_alone() -> None:
    policy = TokenSelect(8, 1, 2)
    k, v, q, new = draw(8, 1, 2, 20, 5), draw(9, 1, 2, 20, 5), draw(10, 1, 4, 1, 5), draw(11, 1, 2, 1, 5)
    _, memory = policy.attend(q, new, new, after(policy, k, v), NEXT)
    expected, _ = policy.attend(q, new, new, memory, NEXT)
    seen = torch.zeros(21, dtype=torch.bool)
    seen[memory["voted"][0]] = seen[0] = seen[-1] = True
    damaged = {n: x.masked_fill(~seen[:, None], torch.nan) if n in "kv" else x for n, x in memory.items()}
    out, _ = policy.attend(q, new, new, damaged, NEXT)
    assert torch.equal(out, expected) and out.isfinite().all()
    assert policy.meters() == {"read": pytest.approx(8 / 22), "reused": 1.0}


def test_the_vote_is_part_of_the_state() -> None:
    """Two texts in turn through one policy are as each alone."""
    lm = lean("llama").under(TokenSelect(6, 1, 2, threshold=-1.0))  # one vote, held for good
    ids = torch.randint(11, (2, 30), generator=torch.Generator().manual_seed(0))
    alone = []
    for row in ids:
        state, outs = lm(row[None, :20], None)[1], []
        for token in row[20:]:
            logits, state = lm(token[None, None], state)
            outs.append(logits)
        alone.append(torch.cat(outs, 1))
    states = [lm(row[None, :20], None)[1] for row in ids]
    for i in range(20, 30):
        for row in range(2):
            logits, states[row] = lm(ids[row : row + 1, i : i + 1], states[row])
            assert torch.equal(logits, alone[row][:, i - 20 : i - 19])


def test_votes_on_four_bits_read_the_codes_alone_and_nearly_agree() -> None:
    k, v, q, new = (draw(20 + i, 1, heads, n, 64) for i, (heads, n) in enumerate(((2, 300), (2, 300), (4, 1), (2, 1))))
    exact, coded = (TokenSelect(60, 2, 8, four_bits=four) for four in (False, True))
    _, expected = exact.attend(q, new, new, after(exact, k, v), NEXT)
    start = after(coded, k, v)
    assert start["codes"].shape == (1, 2, 0, 32)
    _, memory = coded.attend(q, new, new, start, NEXT)
    both = set(memory["voted"][0].tolist()) & set(expected["voted"][0].tolist())
    assert 40 <= len(both) < 50  # of 50, where ten would be there by chance
    assert coded.meters()["read"] == pytest.approx((60 + 301 / 2 / 16) / 301)  # of float64 keys a sixteenth
    damaged = {**memory, "k": torch.full_like(memory["k"], torch.nan)}
    _, again = coded.attend(-q, new, new, damaged, NEXT)
    assert again["codes"].shape[2] == 302 and not torch.equal(again["voted"], memory["voted"])


def test_the_range_of_the_codes_is_taken_anew_once_the_cache_has_doubled() -> None:
    policy = TokenSelect(8, 1, 2, threshold=2.0, four_bits=True)
    k, q = draw(30, 1, 2, 20, 4), draw(31, 1, 4, 1, 4)
    memory = policy.attend(q, k[:, :, :1], k[:, :, :1], after(policy, k, k), NEXT)[1]
    assert memory["low"].shape == (1, 2, 1, 4)
    large = torch.full((1, 2, 1, 4), 100.0, dtype=DTYPE)
    grown = policy.attend(q, large, large, memory, NEXT)[1]
    assert torch.equal(grown["step"], memory["step"]) and grown["codes"].shape[2] == 22
    several = policy.attend(q.expand(-1, -1, 30, -1), *[draw(32, 1, 2, 30, 4)] * 2, grown, NEXT)[1]
    assert several["codes"].shape[2] == 22
    anew = policy.attend(q, large, large, several, NEXT)[1]
    assert anew["codes"].shape[2] == 53 and (anew["step"] > 10 * memory["step"]).all()


def test_nonsense_is_refused() -> None:
    with pytest.raises(PacelineError, match="do not fill bytes"):
        TokenSelect(four_bits=True).empty(1, 1, 5, torch.empty(0))
    with pytest.raises(PacelineError, match="nothing to choose"):
        TokenSelect(80, 16, 64)
