"""LoRA: the paper's formula, what PEFT reads of it, what it covers, and what it refuses to call covered."""

import copy
import json
import os

import pytest
import torch
from _foreign import foreign
from _tiny import PLANS, model
from torch import nn

import paceline  # noqa: F401 - it tells transformers
from paceline.adapt.lora import NAME, LoRA, adapted
from paceline.claims.adapt.lora import faithful
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.lm.checkpoint import save_model
from paceline.lm.config import Config

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


@pytest.fixture(params=["hybrid", "llama"])
def base(request, tmp_path):
    """One of Paceline's models and one of Hugging Face's, both as Hugging Face's."""
    if request.param == "llama":
        return foreign("llama").model.float()
    save_model(model("hybrid", 256), Config(256, 16, 24, PLANS["hybrid"]), tmp_path / "model")
    return transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")


def stir(part: nn.Module) -> None:
    """Updates that are not zero."""
    for _, layer in adapted(part):
        nn.init.normal_(layer.lora_B[NAME].weight, std=0.1)


def test_a_layer_is_the_paper_s_formula_and_the_authors_layer():
    assert faithful() is True


def test_all_linear_maps_but_the_head_are_adapted(base):
    expected = {n for n, m in base.named_modules() if isinstance(m, nn.Linear)} - {"lm_head"}
    coverage = LoRA(rank=2).apply(base)
    assert set(coverage.covered) == expected and coverage.bare == () and coverage.share == 1
    trained = {name for name, p in base.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(expected) and all("lora_" in name for name in trained)
    assert 0 < coverage.trained_share < 1


def test_peft_reads_what_is_saved(base, tmp_path):
    ids = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(0))
    plain, adapter = copy.deepcopy(base), LoRA(rank=3, alpha=5.0)
    adapter.apply(base)
    stir(base)
    adapter.save(base, tmp_path / "adapter", base="somewhere")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 3
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter")
    with torch.no_grad():
        expected = base(ids).logits
        assert close(theirs(ids).logits, expected, torch.float32)
        assert close(theirs.merge_and_unload()(ids).logits, expected, torch.float32)


def test_we_read_what_peft_saves(base, tmp_path):
    ids, plain = torch.arange(10).view(1, 10), copy.deepcopy(base)
    targets = sorted({n.rpartition(".")[2] for n, m in base.named_modules() if isinstance(m, nn.Linear)} - {"lm_head"})
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=7, target_modules=targets))
    stir(theirs)
    theirs.save_pretrained(tmp_path)
    names = LoRA().load(plain, tmp_path).covered
    assert names
    with torch.no_grad():
        assert close(plain(ids).logits, theirs(ids).logits, torch.float32)


def test_an_adapter_of_another_kind_is_left_to_peft(base, tmp_path):
    adapter = LoRA(rank=2)
    adapter.apply(base)
    adapter.save(base, tmp_path)
    facts = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**facts, "use_dora": True}))
    with pytest.raises(PacelineError, match="use_dora=True: open it with PEFT"):
        LoRA().load(base, tmp_path)


def test_covering_little_is_refused(base):
    one = next(name for name, module in base.named_modules() if isinstance(module, nn.Linear))
    with pytest.raises(PacelineError, match=r"LoRA would adapt \d+% of the linear maps, less than 50%"):
        LoRA(targets=(one,)).apply(base)
    assert LoRA(targets=(one,), least=0.0).apply(base).covered == (one,)


def test_matching_nothing_is_refused(base):
    with pytest.raises(PacelineError, match="LoRA fits nothing"):
        LoRA(targets=("c_attn_of_another_model",)).apply(base)
    with pytest.raises(PacelineError, match="has no linear map"):
        LoRA().apply(nn.Embedding(3, 4))
    assert not any("lora" in name for name, _ in base.named_parameters())


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_of_nothing_is_refused(rank):
    with pytest.raises(PacelineError, match=f"rank={rank} adapts nothing: give at least 1"):
        LoRA(rank=rank)


def test_experts_stacked_in_one_parameter_are_seen_to_be_left_out():
    coverage = LoRA(least=0.0).apply(foreign("qwen3-next").model)
    assert any("experts" in name for name in coverage.bare) and coverage.share < 1
    ours = LoRA(least=0.0).apply(model("hybrid"))
    assert ours.share == 1


def test_maps_that_a_kernel_reads_for_itself_are_left_out():
    coverage = LoRA(least=0.0).apply(foreign("mamba").model)
    assert {name.rpartition(".")[2] for name in coverage.bare} == {"out_proj", "dt_proj"}


def test_the_meters_tell_how_far_each_map_moved():
    part, adapter = nn.Sequential(nn.Linear(4, 4, bias=False)), LoRA(rank=1, alpha=1.0)
    adapter.apply(part)
    layer = part[0]
    with torch.no_grad():
        layer.get_base_layer().weight.copy_(2 * torch.eye(4))
        layer.lora_A[NAME].weight.copy_(torch.tensor([[3.0, 0, 0, 0]]))
    assert adapter.meters(part) == {"moved": 0.0, "reached": 0.0}
    with torch.no_grad():
        layer.lora_B[NAME].weight.copy_(torch.tensor([[1.0], [0], [0], [0]]))
    for merged in (False, True):
        if merged:
            adapter.merge(part)
        assert adapter.meters(part) == pytest.approx({"moved": 3 / 4, "reached": 1.0})
