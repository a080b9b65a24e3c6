"""LoRA through PEFT says what it covers, refuses to cover little, and trains the adapters alone."""

import os

import pytest
import torch
from _foreign import foreign
from _tiny import PLANS, model

import paceline  # noqa: F401 - it tells transformers
from paceline.core.errors import PacelineError
from paceline.lm.checkpoint import save_model
from paceline.lm.config import Config

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


@pytest.fixture(params=["hybrid", "llama"])
def base(request, tmp_path):
    """One of Paceline's models and one of Hugging Face's."""
    if request.param == "llama":
        return foreign("llama").model.float()
    save_model(model("hybrid", 256), Config(256, 16, 24, PLANS["hybrid"]), tmp_path / "model")
    return transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")


def lora(*args, **more):
    from paceline.lm.huggingface.lora import add_lora

    return add_lora(*args, **more)


def test_all_linear_maps_but_the_head_are_adapted(base):
    expected = {n for n, m in base.named_modules() if isinstance(m, torch.nn.Linear)} - {"lm_head"}
    adapted, coverage = lora(base, rank=2)
    assert set(coverage.covered) == expected and coverage.bare == () and coverage.share == 1
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(expected) and all("lora_" in name for name in trained)


def test_it_begins_as_the_base_learns_and_merges(base):
    ids = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = base(ids).logits.clone()
    adapted, _ = lora(base, rank=2)
    assert torch.allclose(adapted(ids).logits, before, atol=1e-6)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        loss = adapted(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01
    with torch.no_grad():
        after = adapted(ids).logits
        assert torch.allclose(adapted.merge_and_unload()(ids).logits, after, atol=1e-4)


def test_covering_little_is_refused(base):
    one = next(name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear))
    with pytest.raises(PacelineError, match=r"LoRA would adapt \d+% of the linear maps, less than 50%"):
        lora(base, targets=[one])


def test_matching_nothing_is_refused(base):
    with pytest.raises(PacelineError, match="LoRA fits nothing"):
        lora(base, targets=["c_attn_of_another_model"])
