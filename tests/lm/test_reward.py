"""Reward models trained on preferences, and the siblings of known models."""

from pathlib import Path

import pytest
import torch
from _tiny import model

from paceline.core.errors import PacelineError
from paceline.decode._reward import text_reward
from paceline.lm.open import open_lm
from paceline.lm.reward import train_reward
from paceline.lm.siblings import SIBLINGS, known_or_folder


def pairs(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Small numbers are preferred to large ones."""
    generator = torch.Generator().manual_seed(step)
    low = torch.randint(0, 5, (8, 12), generator=generator)
    return low, low + 5


def test_a_reward_model_learns_what_is_preferred() -> None:
    lm = model("attention", 10)
    losses = train_reward(lm, pairs, 40, lr=1e-2)
    preferred, other = (text_reward(lm.logits(ids[:, :-1]), ids[:, 1:]) for ids in pairs(1_000))
    assert (preferred > other + 5).all() and losses[-1] < losses[0] / 2
    assert not lm.training


def test_a_loss_that_is_no_number_ends_it() -> None:
    lm = model("attention", 10)
    torch.nn.init.constant_(lm.embedding.weight, float("nan"))
    with pytest.raises(PacelineError, match="at step 0: give a lower rate"):
        train_reward(lm, pairs, 2)


def test_a_sibling_is_trained_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    for name in SIBLINGS:
        with pytest.raises(PacelineError, match=f"run `paceline train {name}` once"):
            open_lm(name)
    assert len({recipe.folder for recipe in SIBLINGS.values()}) == len(SIBLINGS)
    with pytest.raises(PacelineError, match="There is no folder nowhere"):
        known_or_folder("nowhere")
