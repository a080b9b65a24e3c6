"""HiP in a loaded model: the same model where every key fits, near it where not, and a sentence where it cannot be."""

import pytest
import torch
from _foreign import foreign

from paceline.core.errors import PacelineError
from paceline.lm.huggingface.hip import use_hip
from paceline.lm.pretrained import pretrained
from paceline.mixers._hip import Pruning

SMALL = Pruning(keys=8, window=4, sinks=2, block_q=4, block_k=2, stride_k=1)


def llama():
    return foreign("llama").model


def ids(length, batch=2):
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_smollm2_reads_the_same_where_all_keys_fit_and_nearly_the_same_where_they_do_not(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    folder = pretrained("smollm2")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = " ".join(f"In year {i} the river rose by {i * 7 % 13} feet." for i in range(40))
    x = tokenizer(text, return_tensors="pt").input_ids[:, :400]
    full = model(x).logits
    use = use_hip(model, keys=512)
    assert torch.allclose(model(x).logits, full, atol=1e-3) and set(use.meters().values()) == {1.0}
    use = use_hip(model, keys=64, window=64, block_q=32)
    pruned = model(x).logits
    assert pruned.isfinite().all() and not torch.allclose(pruned, full, atol=1e-3)
    assert (pruned.argmax(-1) == full.argmax(-1)).float().mean() > 0.8
    assert len(use.meters()) == 27 and all(0 < share < 0.8 for share in use.meters().values())
    longer = model.generate(x, max_new_tokens=4, do_sample=False, attention_mask=torch.ones_like(x))
    assert longer.shape[1] > x.shape[1] and torch.equal(longer[:, : x.shape[1]], x)


@torch.no_grad()
def test_the_first_layers_stay_dense():
    x, model = ids(40), llama()
    full = model(x).logits
    use = use_hip(model, SMALL, dense_layers=1)
    assert not torch.allclose(model(x).logits, full) and list(use.meters()) == ["attended.1"]
    use = use_hip(model, SMALL, dense_layers=2)
    assert torch.allclose(model(x).logits, full) and use.meters() == {}


@torch.no_grad()
def test_what_was_read_does_not_depend_on_what_comes():
    model, x = llama(), ids(40)
    use_hip(model, SMALL, dense_layers=0)
    changed = x.clone()
    changed[:, 31:] = (changed[:, 31:] + 1) % 11
    assert torch.allclose(model(changed).logits[:, :31], model(x).logits[:, :31])


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[30, 1, 1, 8], [3, 37], [1] * 40])
def test_with_a_cache_full_attention_stays_full_and_pruned_stays_pruned(pieces):
    model, x = llama(), ids(40)
    full = model(x).logits
    for sizes, exact in ((Pruning(keys=64, block_q=4, block_k=4), True), (SMALL, False)):
        use = use_hip(model, sizes, dense_layers=0)
        cache, found = None, []
        for piece in x.split(pieces, dim=1):
            out = model(piece, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            found.append(out.logits)
        assert torch.cat(found, dim=1).isfinite().all()
        assert torch.allclose(torch.cat(found, dim=1), full) == exact
        assert all((share == 1) == exact for share in use.meters().values())


def test_what_hip_cannot_read_is_refused_in_a_sentence():
    model, x = llama(), ids(12)
    use_hip(model, SMALL)
    with pytest.raises(PacelineError, match="no padding"):
        model(x, attention_mask=torch.ones_like(x).index_fill(1, torch.tensor([0]), 0))
    with pytest.raises(PacelineError, match="one document a row"):
        model(x, position_ids=torch.arange(12).remainder(6).expand(2, -1), use_cache=False)
    with pytest.raises(PacelineError, match="without other masks"):
        model(x, attention_mask=torch.zeros(2, 1, 12, 12, dtype=torch.float64))
    with pytest.raises(PacelineError, match="plain growing cache"):
        model.generate(x, max_new_tokens=3, cache_implementation="static")


def test_models_that_hip_cannot_serve_are_refused():
    with pytest.raises(PacelineError, match="no attention that can be exchanged"):
        use_hip(foreign("mamba").model)
    gemma = foreign("gemma3").model
    use_hip(gemma, SMALL, dense_layers=0)
    with pytest.raises(PacelineError, match="sliding_window"):
        gemma(ids(12))
    with pytest.raises(PacelineError, match="not both"):
        use_hip(llama(), SMALL, keys=4)
