"""Facts about feed-forwards of Hugging Face models that become mixtures of experts."""

import pytest
import torch
from _foreign import foreign
from _tiny import VOCABULARY

from paceline.blocks.moe import MoE
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.lm.pretrained import pretrained

pytest.importorskip("transformers")
from paceline.lm.huggingface.graft import graft
from paceline.lm.huggingface.upcycle import auxiliary_loss, balanced, begin_step, upcycle


def ids(length=12):
    return torch.randint(VOCABULARY, (4, length), generator=torch.Generator().manual_seed(0))


def grafted(**options):
    torch.manual_seed(1)
    model = foreign("llama").model
    graft(model, "model.layers.*.mlp", lambda mlp: upcycle(mlp, **options))
    return model


@pytest.mark.parametrize(("experts", "top"), [(4, 2), (3, 3)])
def test_the_model_says_what_it_said(experts, top):
    before, model = foreign("llama").model, grafted(experts=experts, top=top)
    assert close(model(ids()).logits, before(ids()).logits, torch.float64)
    mixtures = [module for module in model.modules() if isinstance(module, MoE)]
    assert len(mixtures) == 2 and all(0 < m.meters()["balance"] <= 1 for m in mixtures)
    assert all(p.dtype == torch.float64 for p in model.parameters())
    plain = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(ids(), **plain), before.generate(ids(), **plain))


def test_one_layer_of_smollm2_says_what_it_said(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(pretrained("smollm2"))
    text = torch.arange(100, 124).view(1, -1)
    with torch.no_grad():
        before = model(text).logits
        assert graft(model, "model.layers.3.mlp", lambda mlp: upcycle(mlp, experts=4)) == ["model.layers.3.mlp"]
        assert close(model(text).logits, before, torch.float32)
    assert model.model.layers[3].mlp.use.sum() == 24 * 2


def test_the_balancing_loss_joins_the_loss_in_training_alone():
    model = grafted(balance=0.5).train()
    plain = model(ids(), labels=ids()).loss
    handle = balanced(model, passes=2)
    joined = model(ids(), labels=ids()).loss
    assert joined.item() == pytest.approx(plain.item() + auxiliary_loss(model).item() / 2, rel=1e-9)
    assert auxiliary_loss(model).item() > 0.5
    assert model(ids()).loss is None
    assert model.eval()(ids(), labels=ids()).loss.item() == pytest.approx(plain.item(), rel=1e-9)
    model.train()
    handle.remove()
    assert model(ids(), labels=ids()).loss.item() == pytest.approx(plain.item(), rel=1e-9)


def test_a_plain_loop_trains_the_experts_apart_and_the_router_towards_balance():
    model = grafted(balance=1.0).float().train()
    balanced(model)
    mixture = model.model.layers[0].mlp
    with torch.no_grad():
        mixture.router.weight.mul_(20)  # far from balance
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses, use = [], []
    for _ in range(40):
        begin_step(model)
        loss = model(ids(), labels=ids()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        use.append(mixture.meters()["balance"])
    assert losses[-1] < losses[0] - 0.1 and use[-1] > use[0]
    assert not torch.allclose(mixture.inner[0], mixture.inner[1], atol=1e-3)


def test_what_cannot_be_upcycled_is_refused():
    llama, gemma = foreign("llama").model, foreign("gemma3").model
    with pytest.raises(PacelineError, match="needs gate_proj, up_proj, down_proj without bias"):
        upcycle(llama.model.layers[0].self_attn)
    with pytest.raises(PacelineError, match="SiLU"):
        upcycle(gemma.model.layers[0].mlp)
    with pytest.raises(PacelineError, match="give top=2 or more"):
        upcycle(llama.model.layers[0].mlp, top=1)
    with pytest.raises(PacelineError, match="top=3 of experts=2"):
        upcycle(llama.model.layers[0].mlp, experts=2, top=3)
    with pytest.raises(PacelineError, match="no mixture of experts in LlamaForCausalLM"):
        balanced(llama)
