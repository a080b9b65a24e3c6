"""A saved Paceline model is one of Hugging Face's: loaded by `Auto` classes, generating, saved and loaded again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _tiny import PLANS, VOCABULARY, model
from torch import Tensor

import paceline  # noqa: F401 - it tells transformers
from paceline.core.errors import PacelineError
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.lm.checkpoint import load_model, save_model
from paceline.lm.config import Config, build

transformers = pytest.importorskip("transformers")
BYTES = 256


@pytest.fixture(scope="module", params=list(PLANS))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a byte model."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(model(request.param, BYTES), Config(BYTES, 16, 24, PLANS[request.param]), folder)
    return folder


@pytest.fixture(scope="module")
def loaded(saved: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(saved).eval()


def prompt(rows: int = 2) -> Tensor:
    return torch.randint(BYTES, (rows, 7), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_loaded_model_is_the_saved_one(saved: Path, loaded) -> None:
    ids = prompt()
    assert torch.equal(loaded(ids).logits, load_model(saved)[0].logits(ids))
    with_cache = loaded(ids, use_cache=True)
    assert torch.allclose(with_cache.logits, loaded(ids).logits, atol=1e-5)
    assert with_cache.past_key_values.get_seq_length() == 7


@torch.no_grad()
def test_the_loss_is_that_of_the_next_token(loaded) -> None:
    ids = prompt()
    expected = torch.nn.functional.cross_entropy(loaded(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loaded(ids, labels=ids).loss == pytest.approx(float(expected), rel=1e-5)


def test_greedy_generation_is_ours(saved: Path, loaded) -> None:
    ids = prompt(1)
    ours = generate(load_model(saved)[0], ids[0], Greedy(), 12).all()
    assert loaded.generate(ids, max_new_tokens=12, do_sample=False)[0, 7:].tolist() == ours


@pytest.mark.parametrize("way", [{"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}, {}])
def test_beams_are_the_same_with_a_cache_and_without(loaded, way: dict[str, int]) -> None:
    found = [
        loaded.generate(prompt(), max_new_tokens=8, do_sample=False, use_cache=use, **way) for use in (True, False)
    ]
    assert torch.equal(*found)


def test_samples_are_the_same_with_a_cache_and_without(loaded) -> None:
    found = []
    for use in (True, False):
        torch.manual_seed(3)
        found.append(loaded.generate(prompt(), max_new_tokens=8, do_sample=True, top_k=0, use_cache=use))
    assert torch.equal(*found) and not torch.equal(found[0][:, :7], found[0][:, -7:])


@pytest.fixture(scope="module")
def padded() -> tuple[Tensor, Tensor]:
    """Four prompts of 7, 5, 7 and 1 tokens in a batch, and its mask."""
    ids = torch.randint(1, BYTES, (4, 7), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, :2] = mask[3, :6] = 0
    return ids * mask, mask


@pytest.mark.parametrize("use_cache", [True, False])
def test_what_is_padded_on_the_left_reads_as_alone(loaded, padded, use_cache: bool) -> None:
    ids, mask = padded
    together = loaded(ids, attention_mask=mask, use_cache=use_cache).logits
    for row, seen in enumerate(mask.sum(1).tolist()):
        alone = loaded(ids[row : row + 1, 7 - seen :]).logits
        assert torch.allclose(together[row, 7 - seen :], alone[0], atol=1e-5)
    together[:, -1].sum().backward()  # it can be trained so, too
    assert all(p.grad is None or p.grad.isfinite().all() for p in loaded.parameters())


@pytest.mark.parametrize("way", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "num_beams": 2}])
def test_prompts_of_several_lengths_generate_as_alone(loaded, padded, way: dict[str, int]) -> None:
    ids, mask = padded
    how = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, **way}
    together = loaded.generate(ids, attention_mask=mask, **how)
    for row, seen in enumerate(mask.sum(1).tolist()):
        alone = loaded.generate(ids[row : row + 1, 7 - seen :], **how)
        times = way.get("num_return_sequences", 1)
        assert torch.equal(together[row * times : (row + 1) * times, 7:], alone[:, seen:])


def test_nothing_but_padding_is_refused(loaded) -> None:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0] = 0
    with pytest.raises(PacelineError, match="nothing but padding"):
        loaded(prompt(), attention_mask=mask)


def test_an_encoder_is_no_language_model(tmp_path: Path) -> None:
    config = Config(VOCABULARY, 16, 24, PLANS["ema"], "listops", form="encoder")
    save_model(build(config), config, tmp_path / "encoder")
    assert load_model(tmp_path / "encoder")[1] == config
    with pytest.raises(PacelineError, match="is an encoder"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "encoder")


def test_saved_by_hugging_face_it_loads_in_both(saved: Path, loaded, tmp_path: Path) -> None:
    loaded.save_pretrained(tmp_path / "again")
    ids = prompt()
    with torch.no_grad():
        expected = loaded(ids).logits
        assert torch.equal(load_model(tmp_path / "again")[0].logits(ids), expected)
        assert torch.equal(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")(ids).logits, expected)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本 🚤\n\t\0", "\u202eא"])
def test_its_tokenizer_reads_bytes(saved: Path, text: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    assert tokenizer(text).input_ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text and len(tokenizer) == BYTES


def test_every_byte_is_a_token(saved: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    assert sorted(tokenizer.get_vocab().values()) == list(range(256))
    assert tokenizer.decode([0xFF, 0x41]) == "\ufffdA"


ASK = "from transformers import AutoConfig, AutoModelForCausalLM as Auto"
PLAN = "print(Auto.from_config(AutoConfig.from_pretrained('model')).config.plan)"


@pytest.mark.parametrize("order", [f"import paceline; {ASK}", f"{ASK}; import paceline"])
def test_the_order_of_imports_does_not_matter(order: str, tmp_path: Path) -> None:
    save_model(model("ema"), Config(VOCABULARY, 16, 24, PLANS["ema"], "recall"), tmp_path / "model")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", f"{order}; {PLAN}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.strip() == "['ema(dims=4)', 'ema(dims=4)']", done.stderr
