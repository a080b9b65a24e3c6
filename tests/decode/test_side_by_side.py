"""Prompts of unequal length side by side say what each says alone, and what they all begin with is read once."""

import pytest
import torch
from _foreign import foreign

from paceline.decode._generate import generate, generate_batch
from paceline.decode.greedy import Greedy
from paceline.lm.huggingface.llama import Llama
from paceline.lm.quick import quicken

TEXT = torch.randint(0, 11, (40,), generator=torch.Generator().manual_seed(0)).tolist()
APART = [TEXT[:9], TEXT[3:20], TEXT[5:8]]
ALIKE = [TEXT[:17], [*TEXT[:12], 7, 7, 8], [*TEXT[:12], 9]]
NESTED = [TEXT[:12], TEXT[:5], TEXT[:20]]


@pytest.mark.parametrize(("prompts", "shared"), [(APART, 0), (ALIKE, 12), (NESTED, 4)])
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("piece", [5, 1024])
def test_each_says_what_it_says_alone(
    prompts: list[list[int]], shared: int, quick: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In padded pieces, and joined to one text that is read at once."""
    monkeypatch.setattr("paceline.lm.quick.LEAST", 1)
    monkeypatch.setattr("paceline.lm.huggingface.llama.PIECE", piece)
    lm = Llama(foreign("llama").model.float())
    lm = quicken(lm) if quick else lm
    alone = [generate(lm, prompt, Greedy(), 10).all() for prompt in prompts]
    made, counts = generate_batch(lm, prompts, Greedy(), 10)
    assert made == alone
    read = sum(map(len, prompts)) - 2 * shared
    assert (counts.read, counts.reused) == (read + 9 * 3, 2 * shared)
    end = made[0][3]
    stopped, _ = generate_batch(lm, prompts, Greedy(), 10, stop=[end])
    assert stopped == [tokens[: tokens.index(end) + 1] if end in tokens else tokens for tokens in alone]
