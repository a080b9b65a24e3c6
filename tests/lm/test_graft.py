"""Parts in a loaded Hugging Face model: put where they were asked for, decoding with a cache as without, trainable."""

import pytest
import torch
from _foreign import foreign

from paceline.blocks.sma import SMA
from paceline.core.errors import PacelineError
from paceline.lm.huggingface.foreign import HuggingFaceLM
from paceline.lm.huggingface.graft import InPlaceOfAttention, graft
from paceline.mixers.ema import EMA
from paceline.mixers.seqboat import SeqBoat

MIXERS = {"ema": lambda: EMA(16, dims=3), "seqboat": lambda: SeqBoat(16, memory=3, key_width=4, dims=3)}


def ids(length=9):
    return torch.randint(11, (2, length), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[(kind, layers) for kind in MIXERS for layers in ("0", "1", "*")], ids="-".join)
def swapped(request):
    """A Llama with a mixer in place of one or both of its attentions."""
    kind, layers = request.param
    torch.manual_seed(0)
    model = foreign("llama").model
    names = graft(model, f"model.layers.{layers}.self_attn", lambda a: InPlaceOfAttention(MIXERS[kind]().double(), a))
    assert names == [f"model.layers.{i}.self_attn" for i in (0, 1) if layers in (str(i), "*")]
    return model


@torch.no_grad()
def test_a_swapped_model_generates_the_same_with_a_cache_and_without(swapped):
    for way in ({}, {"num_beams": 3}):
        plain = {"max_new_tokens": 8, "do_sample": False, **way}
        assert torch.equal(*(swapped.generate(ids(), use_cache=use, **plain) for use in (True, False)))


@torch.no_grad()
def test_a_swapped_model_keeps_the_protocol(swapped):
    lm, text = HuggingFaceLM(swapped), ids(12)
    whole = lm(text, None)[0]
    _, state = lm(text[:, :4], None)
    state = state.keeping(5)
    _, state = lm(text[:, 4:7], state)
    _, state = lm(ids(3), state)
    logits, _ = lm(text[:, 6:].flip(0), state.rewind(4).select(torch.tensor([1, 0])))
    assert torch.allclose(logits.flip(0), whole[:, 6:], atol=1e-9)


def test_a_wrapped_module_runs_only_where_it_is_asked_for_and_learns():
    model = foreign("llama").model.float()
    names = graft(model, "model.layers.*.mlp", lambda mlp: SMA(mlp, d_model=16))
    assert names == ["model.layers.0.mlp", "model.layers.1.mlp"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = model(ids(), labels=ids()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert 0 < model.model.layers[0].mlp.meters()["activated"] <= 1


def test_what_matches_nothing_is_refused():
    model = foreign("llama").model
    with pytest.raises(PacelineError, match=r"No module of LlamaForCausalLM matches 'layers\.\*\.mlp'"):
        graft(model, "layers.*.mlp", lambda mlp: mlp)
    with pytest.raises(PacelineError, match="no attention of a decoder"):
        graft(model, "model.layers.0.mlp", lambda mlp: InPlaceOfAttention(MIXERS["ema"](), mlp))
