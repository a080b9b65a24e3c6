"""SmolLM2 comes from its package, byte for byte the pinned one, and is converted once."""

import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.lm import pretrained as module
from paceline.lm.pretrained import KNOWN, pretrained


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """An empty cache, and how often something was converted into it (which takes half a minute, so not here)."""
    calls = []

    def convert(gguf, folder):
        calls.append(gguf)
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "packaged", lambda *source: source[2])
    monkeypatch.setattr(module, "_convert", convert)
    return calls


def test_smollm2_knows_the_capital_of_france(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    folder = pretrained("smollm2")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32 and sum(p.numel() for p in model.parameters()) == 134_515_008
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert "Paris" in tokenizer.decode(model.generate(ids, max_new_tokens=4, do_sample=False)[0])


def test_it_is_converted_once(converted):
    assert pretrained("smollm2") == pretrained("smollm2") and converted == [KNOWN["smollm2"].file]


@pytest.mark.parametrize("harm", ["{", "", None])
def test_a_damaged_cache_is_converted_anew(converted, harm):
    config = pretrained("smollm2") / "config.json"
    config.unlink() if harm is None else config.write_text(harm)
    assert (pretrained("smollm2") / "config.json").read_text() == "{}" and len(converted) == 2


def test_a_cache_that_cannot_be_written_is_one_sentence(converted, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(PacelineError, match="make room, or set PACELINE_CACHE to another folder"):
        pretrained("smollm2")


def test_an_unknown_model_is_refused():
    with pytest.raises(PacelineError, match="Did you mean 'smollm2'"):
        pretrained("smollm")
