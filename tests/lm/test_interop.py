"""Libraries that take Hugging Face models take Paceline's: PEFT, lm-evaluation-harness, TRL, torch.compile."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _tiny import PLANS, model

import paceline  # noqa: F401 - it tells transformers
from paceline.lm.checkpoint import save_model
from paceline.lm.config import Config

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
transformers = pytest.importorskip("transformers")
TEXTS = ["the cat sat on the mat", "a bird in the hand", "two in the bush", "an apple a day"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a byte model with an EMA, a window of attention and a SeqBoat."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(model("hybrid", 256), Config(256, 16, 24, PLANS["hybrid"]), folder)
    return folder


def load(folder: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def test_lm_eval_scores_a_local_task(saved: Path, tmp_path: Path) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM

    rows = [{"start": text[:-2], "ends": [text[-2:], "zz"], "right": 0} for text in TEXTS]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "local", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{start}}", "doc_to_choice": "{{ends}}",
        "doc_to_target": "{{right}}", "target_delimiter": "", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    lm = HFLM(pretrained=load(saved), tokenizer=tokenizer, batch_size=2, max_length=64, prefix_token_id=0)
    found = lm_eval.simple_evaluate(lm, tasks=[task], log_samples=True)
    sums = []
    with torch.no_grad():
        for row in rows:
            for end in row["ends"]:
                ids = torch.tensor([list((row["start"] + end).encode())])
                logs = load(saved)(ids).logits.log_softmax(-1)[0, -3:-1]
                sums.append(float(logs.gather(1, ids[0, -2:, None]).sum()))
    said = [float(answer[0][0]) for sample in found["samples"]["local"] for answer in sample["resps"]]
    assert said == pytest.approx(sums, rel=1e-4)
    right = [a > b for a, b in zip(sums[::2], sums[1::2], strict=True)]
    assert found["results"]["local"]["acc,none"] == sum(right) / len(right)


def test_trl_fine_tunes_it(saved: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    lm, tokenizer = load(saved), transformers.AutoTokenizer.from_pretrained(saved)
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.convert_ids_to_tokens(0)
    before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    settings = trl.SFTConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, learning_rate=1e-2, report_to=[],
        use_cpu=True, max_length=32, save_strategy="no", bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    rows = Dataset.from_dict({"text": TEXTS})
    trained = trl.SFTTrainer(lm, settings, train_dataset=rows, processing_class=tokenizer).train()
    assert trained.training_loss == pytest.approx(math.log(256), abs=1.5) and trained.global_step == 1
    assert any(not torch.equal(tensor, before[name]) for name, tensor in lm.state_dict().items())


COMPILE = """
import sys, torch, paceline
from transformers import AutoModelForCausalLM
lm = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
ids = torch.randint(256, (2, 20), generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    print(float((torch.compile(lm)(ids).logits - lm(ids).logits).abs().max()))
"""


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a compiler")
def test_it_compiles(saved: Path) -> None:
    """In a process without the checks of shapes, which the compiler cannot follow."""
    done = subprocess.run([sys.executable, "-c", COMPILE, saved], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0 and float(done.stdout) < 1e-4, done.stderr
