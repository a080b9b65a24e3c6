"""Adapting a given model in a race: equal budgets, what is measured is what is kept, and errors in a sentence."""

import json
from pathlib import Path

import pytest
import torch
from _foreign import foreign
from _tiny import PLANS, model

from paceline.adapt.lora import LoRA
from paceline.cli.adapting import run, train
from paceline.cli.on_model import run as run_on_model
from paceline.core.errors import PacelineError
from paceline.data._corpus import prepare
from paceline.data._reader import Document
from paceline.lm.adapted import Foreign, flops_per_token, ready, text_task
from paceline.lm.checkpoint import load_model, save_model
from paceline.lm.config import Config
from paceline.lm.evaluate import evaluate
from paceline.lm.open import open_lm
from paceline.race.adapting import ADAPTER, BASE, ROWS, Adapted, adapter
from paceline.race.contestant import Event, Job

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "comes", "back", "by", "night"]


@pytest.fixture
def text(tmp_path) -> Path:
    draw = torch.Generator().manual_seed(0)
    chosen = [WORDS[i] for i in torch.randint(len(WORDS), (4_000,), generator=draw).tolist()]
    (tmp_path / "mine.txt").write_text(" ".join(chosen))
    return tmp_path / "mine.txt"


@pytest.fixture(params=["ours", "llama"])
def place(request, tmp_path) -> Path:
    """One of Paceline's models, of bytes, and one of Hugging Face's, with a tokenizer of its own."""
    folder = tmp_path / request.param
    if request.param == "ours":
        save_model(model("hybrid", 256), Config(256, 16, 24, PLANS["hybrid"], "text"), folder)
        return folder
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = {word: number for number, word in enumerate(dict.fromkeys(["?", *WORDS]))}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(known), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=True, eos_token_id=None,
        bos_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
    return folder


def event(place: Path, text: Path, tokens: int = 512) -> Event:
    prepare([Document("mine", text.read_bytes())], text.parent / "corpus")
    task = text_task(str(place), text.parent / "corpus", 16)
    task.items = 6
    return Event(task, tokens, 0, 2)


def silent(done: int, of: int, loss: float) -> None:
    pass


def test_what_is_kept_is_what_was_measured(place, text, tmp_path):
    race, made = event(place, text, 1024), {}
    for name in (BASE, "lora(rank=2)", "full", "last_layers(layers=1)"):
        folder = tmp_path / "kept" / name
        cell = Adapted(name, str(place), rates=(3e-2,), keeps=True)
        cell.check(race)
        made[name] = cell.run(Job(race, 1, 3e-2, tmp_path / "checkpoints", folder), silent)
    scores = {name: sum(outcome.items) / len(outcome.items) for name, outcome in made.items()}
    assert max(scores["lora(rank=2)"], scores["full"]) < scores[BASE]
    for name in ("lora(rank=2)", "full"):
        folder = tmp_path / "kept" / name
        again = ready(str(folder))
        assert evaluate(again.model, race.task, ROWS).items == pytest.approx(made[name].items, rel=1e-4)
        assert len(open_lm(str(folder)).words.encode("the fox")) > 0
        assert (folder / "checksums.json").is_file() and any((folder / ADAPTER).glob("*.safetensors"))
    assert made["full"].ledger.parameters > 4 * made["lora(rank=2)"].ledger.parameters > 0
    assert made["full"].ledger.tokens == made["lora(rank=2)"].ledger.tokens == 1024
    assert made["full"].ledger.flops > made["lora(rank=2)"].ledger.flops > 0
    assert made["lora(rank=2)"].meters["moved"] > 0 and made["lora(rank=2)"].meters["reached"] == 1
    assert made["full"].meters["kept_mib"] > made["lora(rank=2)"].meters["kept_mib"]


def test_the_kept_adapter_on_the_old_model_is_the_kept_model(place, text, tmp_path):
    race, folder = event(place, text, 128), tmp_path / "kept"
    Adapted("lora(rank=2)", str(place), keeps=True).run(Job(race, 1, 1e-2, tmp_path / "c", folder), silent)
    old, new = ready(str(place)), ready(str(folder))
    LoRA().load(old.inner, folder / ADAPTER, prefix=old.prefix)
    ids = race.task.evaluation().ids[:2]
    with torch.no_grad():
        assert torch.allclose(old.model.eval().logits(ids), new.model.eval().logits(ids), atol=1e-4)


def test_cells_repeat_exactly_and_seeds_differ(place, text, tmp_path):
    race = event(place, text, 128)
    first, again, other = (
        Adapted("lora(rank=2)", str(place)).run(Job(race, seed, 1e-2, tmp_path / "c"), silent).items
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_frozen_model_costs_fewer_operations():
    counts = {}
    for name in ("lora(rank=2)", "full"):
        inner = foreign("llama").model.float()
        adapter(name).apply(inner)
        counts[name] = flops_per_token(Foreign(inner), torch.arange(18).view(2, 9) % 11)
        assert all(p.grad is None for p in inner.parameters())
    assert 1.1 < counts["full"] / counts["lora(rank=2)"] < 1.6


def race_here(contestants: list[str], place: Path, text: Path, folder: Path, **more: object) -> None:
    options = {"field": None, "tokens": 128, "seeds": 1, "out": folder / "out", "keep": folder / "kept"} | more
    run(contestants, str(place), [str(text)], confirm=False, as_json=False, **options)


def test_the_race_keeps_the_winner_merged_and_says_what_it_took(place, text, tmp_path, capsys):
    race_here(["lora(rank=2)", "full"], place, text, tmp_path, tokens=2048)
    told = " ".join(capsys.readouterr().out.split())
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert {cell["contestant"] for cell in result["cells"]} == {BASE, "lora(rank=2)", "full"}
    assert result["winner"]["folder"] == str(tmp_path / "kept") and "merged" in told
    assert "numbers trained" in told and f"Use it: paceline generate {tmp_path / 'kept'}" in told
    kept = ready(str(tmp_path / "kept"))
    assert type(kept.inner) is type(ready(str(place)).inner)
    race_here(["lora(rank=2)", "full"], place, text, tmp_path, tokens=2048)  # again: nothing runs, nothing is lost
    assert (tmp_path / "kept" / ADAPTER).is_dir()
    assert f"Use it: paceline generate {tmp_path / 'kept'}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("contestants", "more", "message"),
    [
        (["lora(rank=0)"], {}, "rank=0 adapts nothing"),
        (["lora(targets=('nothing',))"], {}, "LoRA fits nothing"),
        (["int8"], {}, "There is no method 'int8' in adapt"),
        (["lora(rang=2)"], {}, "has no argument 'rang'"),
        (["lora"], {"tokens": 3}, "too small for one step"),
        (["base"], {}, "base races by itself"),
        (["lora"], {"seeds": 0}, "--seeds must be at least 1"),
    ],
)
def test_what_cannot_be_raced_is_refused_in_a_sentence(contestants, more, message, text, tmp_path):
    save_model(model("hybrid", 256), Config(256, 16, 24, PLANS["hybrid"], "text"), tmp_path / "ours")
    with pytest.raises(PacelineError, match=message):
        race_here(contestants, tmp_path / "ours", text, tmp_path, **more)
    assert not (tmp_path / "kept").exists()


def test_text_with_nothing_in_it_and_models_that_are_none_are_refused(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    save_model(model("hybrid", 256), Config(256, 16, 24, PLANS["hybrid"], "text"), tmp_path / "ours")
    save_model(model("hybrid"), Config(11, 16, 24, PLANS["hybrid"], "recall"), tmp_path / "recall")
    with pytest.raises(PacelineError):
        race_here(["lora"], tmp_path / "ours", tmp_path / "empty.txt", tmp_path)
    with pytest.raises(PacelineError, match="There is no folder"):
        race_here(["lora"], tmp_path / "nowhere", tmp_path / "empty.txt", tmp_path)
    with pytest.raises(PacelineError, match="trained on recall, not on text"):
        ready(str(tmp_path / "recall"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": ["a.txt"], "prompts": Path("b.txt")}, "not both"),
        ({"text": ["a.txt"], "others": ["--task"]}, "--task does not go with --on-model"),
        ({"keep": Path("kept")}, "--keep does not go with --on-model, where nothing is trained"),
        ({"text": ["a.txt"], "model": None}, "needs --on-model"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    given = {"model": "nowhere", "prompts": None, "others": []} | options
    with pytest.raises(PacelineError, match=message):
        run_on_model(["lora"], tokens=None, seeds=None, out=None, confirm=False, as_json=False, **given)


def test_a_kept_model_of_ours_is_one_of_ours(text, tmp_path):
    save_model(model("hybrid", 256), Config(256, 16, 24, PLANS["hybrid"], "text"), tmp_path / "ours")
    race = event(tmp_path / "ours", text, 64)
    Adapted("full", str(tmp_path / "ours"), keeps=True).run(Job(race, 1, 1e-3, tmp_path / "c", tmp_path / "k"), silent)
    assert load_model(tmp_path / "k")[1].plan == PLANS["hybrid"]


def test_one_adapter_alone_is_trained_and_saved(text, tmp_path, capsys):
    save_model(model("hybrid", 256), Config(256, 16, 24, PLANS["hybrid"], "text"), tmp_path / "ours")
    train(str(tmp_path / "ours"), "lora(rank=2)", tmp_path / "made", [str(text)], tokens=256)
    told = " ".join(capsys.readouterr().out.split())
    assert "numbers trained" in told and f"paceline generate {tmp_path / 'made'}" in told
    assert (tmp_path / "made" / ADAPTER / "adapter_model.safetensors").is_file()
    assert load_model(tmp_path / "made")[1].plan == PLANS["hybrid"]
    assert [path.name for path in tmp_path.glob(".made*")] == []
    with pytest.raises(PacelineError, match="is not an empty folder"):
        train(str(tmp_path / "ours"), "lora(rank=2)", tmp_path / "made", [str(text)], tokens=256)
