"""SnapKV against its plain statement, and how it is made question-blind."""

import pytest
import torch
from _lms import lean
from torch.nn import functional

from paceline.context._contract import Place, read
from paceline.context.snapkv import SnapKV
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_it_keeps_what_the_last_tokens_look_at() -> None:
    q, k, v = 3 * draw(0, 2, 4, 20, 6), draw(1, 2, 2, 20, 6), draw(2, 2, 2, 20, 6)
    policy = SnapKV(9, 4, 3)
    out, memory = policy.attend(q, k, v, policy.empty(2, 2, 6, k), Place(0, 1, 0))
    assert close(out, read(q, k, v), torch.float64)  # the prompt itself is read in full
    for row in range(2):
        for group in range(2):
            score = torch.zeros(16, dtype=torch.float64)
            for head in (2 * group, 2 * group + 1):
                for i in range(16, 20):
                    score += (k[row, group, : i + 1] @ q[row, head, i] * 6**-0.5).softmax(0)[:16]
            pooled = functional.pad(score, (1, 1)).unfold(0, 3, 1).mean(1)
            kept = [*sorted(pooled.topk(5).indices.tolist()), 16, 17, 18, 19]
            assert torch.equal(memory["k"][row, group], k[row, group, kept])
            assert torch.equal(memory["v"][row, group], v[row, group, kept])


def test_what_is_generated_is_kept() -> None:
    lm = lean("llama").under(SnapKV(6, 3, 1))
    ids = torch.randint(11, (1, 30), generator=torch.Generator().manual_seed(0))
    _, state = lm(ids[:, :20], None)
    assert {layer["k"].shape[2] for layer in state.layers} == {6}
    for i in range(20, 30):
        _, state = lm(ids[:, i : i + 1], state)
    assert {layer["k"].shape[2] for layer in state.layers} == {16}


def test_a_question_read_after_the_context_does_not_choose() -> None:
    lm = lean("llama").under(SnapKV(6, 3, 1))
    context = torch.randint(11, (1, 20), generator=torch.Generator().manual_seed(0))
    kept, differs = [], []
    for question in (torch.tensor([[1, 2]]), torch.tensor([[7, 9]])):
        _, blind = lm(question, lm(context, None)[1])
        kept.append(torch.cat([layer["k"][:, :, :6] for layer in blind.layers]))
        _, sighted = lm(torch.cat((context, question), dim=1), None)
        differs.append(torch.cat([layer["k"][:, :, :3] for layer in sighted.layers]))
    assert torch.equal(*kept) and not torch.equal(*differs)


def test_nonsense_is_refused() -> None:
    with pytest.raises(PacelineError, match="leave none to choose"):
        SnapKV(32, 32)
    with pytest.raises(PacelineError, match="must be odd"):
        SnapKV(kernel=4)
