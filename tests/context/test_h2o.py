"""H2O against its plain statement: one head, one query at a time."""

import pytest
import torch

import paceline.context.h2o
from paceline.context._contract import Place
from paceline.context.h2o import H2O
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close


def naive(q, k, v, pieces, tokens, recent):
    """One key head and the query heads that share it; keys are known by their positions."""
    scores, kept, outs, start = {}, [], [], 0
    for size in pieces:
        for i in range(start, start + size):
            kept.append(i)
            scores[i] = 0.0
            out = []
            for head in range(q.shape[0]):
                weights = (k[kept] @ q[head, i] * q.shape[2] ** -0.5).softmax(0)
                out.append(weights @ v[kept])
                for place, weight in zip(kept, weights.tolist(), strict=True):
                    scores[place] += weight
            outs.append(torch.stack(out))
        start += size
        if len(kept) > tokens:
            heavy = sorted(kept[: len(kept) - recent], key=lambda i: -scores[i])[: tokens - recent]
            kept = sorted(heavy) + kept[len(kept) - recent :]
    return torch.stack(outs, dim=1), kept


@pytest.mark.parametrize("pieces", [[20], [12, *[1] * 8], [7, 6, 7], [1] * 20])
def test_it_keeps_what_attention_has_fallen_on(pieces: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paceline.context.h2o, "BLOCK", 5)
    generator = torch.Generator().manual_seed(len(pieces))
    q, k, v = (2 * torch.randn(1, h, 20, 6, dtype=torch.float64, generator=generator) for h in (4, 2, 2))
    policy, outs, start = H2O(8, 3), [], 0
    memory = policy.empty(1, 2, 6, k)
    for size in pieces:
        part = slice(start, start + size)
        out, memory = policy.attend(q[:, :, part], k[:, :, part], v[:, :, part], memory, Place(0, 1, start))
        outs.append(out)
        start += size
    for group in range(2):
        heads = slice(2 * group, 2 * group + 2)
        expected, kept = naive(q[0, heads], k[0, group], v[0, group], pieces, 8, 3)
        assert close(torch.cat(outs, 2)[0, heads], expected, torch.float64)
        assert torch.equal(memory["k"][0, group], k[0, group, kept])


def test_nonsense_is_refused() -> None:
    with pytest.raises(PacelineError, match="more than 4"):
        H2O(4, 5)
