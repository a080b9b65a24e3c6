"""What a training step of LoRA costs here, beside PEFT's own model in a plain loop, and beside full fine-tuning.

In one process, every rival in turn in every repeat; medians of whole steps (forward, backward, AdamW), one thread:
- ours: `LoRA(rank=8)` in `lm.train`'s step; PEFT: `get_peft_model` with the same settings and torch's fused AdamW;
- full: `FullFinetuning` in our step, as the measure of what LoRA saves.
On a Llama of random weights, of SmolLM2's shape. Written to results/bench/adapt.json; with `--quick` (4 layers of 30)
only shown. Four minutes on two cores.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from timing import timed
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from paceline.adapt._contract import Adapter
from paceline.adapt.full_finetuning import FullFinetuning
from paceline.adapt.lora import LoRA
from paceline.core.files import write_json
from paceline.data._contract import Batch
from paceline.lm.adapted import Foreign
from paceline.lm.distributed import World
from paceline.lm.train import Recipe, _step, make_optimizer
from paceline.race.result import environment

STORED = Path(__file__).parents[1] / "results" / "bench" / "adapt.json"
RANK, RATE = 8, 1e-3


def llama(layers: int) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1_536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def ours(model: Any, adapter: Adapter, ids: torch.Tensor) -> Callable[[], object]:
    adapter.apply(model)
    trained, recipe = Foreign(model).train(), Recipe(ids.numel(), batch=len(ids), lr=RATE)
    optimizer, batch = make_optimizer(trained, recipe), Batch(ids[:, :-1], ids[:, 1:])
    asked = torch.tensor(batch.targets.numel())
    return lambda: _step(trained, optimizer, batch, asked, 1, recipe, World(), 0)


def theirs(model: Any, ids: torch.Tensor) -> Callable[[], object]:
    adapted = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear")).train()
    chosen = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(chosen, lr=RATE, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        logits = adapted(input_ids=ids[:, :-1], use_cache=False).logits
        functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(chosen, 1.0)
        optimizer.step()

    return step


def steps(layers: int, batch: int, length: int, repeats: int) -> dict[str, Any]:
    base = llama(layers)
    ids = torch.randint(49_152, (batch, length + 1), generator=torch.Generator().manual_seed(0))
    runs = {
        "ours": ours(copy.deepcopy(base), LoRA(rank=RANK), ids),
        "peft": theirs(copy.deepcopy(base), ids),
        "full": ours(base, FullFinetuning(), ids),
    }
    took = timed(runs, repeats)
    return {
        "layers": layers, "batch": batch, "length": length, **took,
        "peft / ours": took["peft"] / took["ours"], "full / ours": took["full"] / took["ours"],
    }  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--quick", action="store_true")
    quick = arguments.parse_args().quick
    torch.set_num_threads(1)
    shapes = [(4, 1, 64, 5)] if quick else [(30, 1, 64, 9), (30, 4, 64, 5)]
    found = [steps(*shape) for shape in shapes]
    Console().print(found)
    if not quick:
        write_json(STORED, {"environment": environment(), "steps": found})


if __name__ == "__main__":
    main()
