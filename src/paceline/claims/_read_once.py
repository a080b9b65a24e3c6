"""A context that is read once for all policies that keep it whole: reading is most of what a question costs.

Full attention, Quest and TokenSelect read a piece of several tokens alike and forget nothing of it; they differ in what
a step reads. So the keys and values of a seed's context are computed by whichever cell comes first, and kept in a file
for those that follow; of several seeds the last few.
"""

import fcntl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from paceline.claims._guiding import shared
from paceline.claims._pretrained import UNCOUNTED
from paceline.context._contract import Memory, Place, Policy
from paceline.context.full import Full
from paceline.context.quest import Quest
from paceline.context.tokenselect import TokenSelect
from paceline.core.state import State
from paceline.lm.huggingface.llama import Llama
from paceline.race.contestant import Job

WHOLE = (Full, Quest, TokenSelect)
KEPT = 4
"""Files: 100 to 200 MB each."""


def read_context(job: Job, lm: Llama, ids: Sequence[int]) -> tuple[State, float]:
    """The state after a prompt that is read in one piece, and the floating-point operations of reading it."""
    if not isinstance(lm.policy, WHOLE):
        return _read(lm, ids)
    path = shared(job, "context").with_suffix(".safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed: another that wants the context waits for it
        if not path.exists():
            _save(path, *_read(lm.under(Full()), ids))
        keys, values, flops = _load(path)
    memories = [_remembered(lm, layer, k, v) for layer, (k, v) in enumerate(zip(keys, values, strict=True))]
    return replace(lm.initial_state(1), layers=tuple(memories), length=len(ids)), flops


def read_whole(lm: Llama, ids: Sequence[int]) -> tuple[Float[Tensor, "1 1 v"], State]:
    """Logits after a prompt that is read in one piece, without those of its other tokens, and the state."""
    empty = lm.initial_state(1)
    lm.check_length(len(ids))
    x, layers = lm.through(lm.embed(torch.tensor([list(ids)])), empty.layers, 0)
    return lm.head(x[:, -1:]), replace(empty, layers=layers, length=len(ids))


def _read(lm: Llama, ids: Sequence[int]) -> tuple[State, float]:
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        _, state = read_whole(lm, ids)
    return state, float(counter.get_total_flops())


def _remembered(lm: Llama, layer: int, k: Tensor, v: Tensor) -> Memory:
    """A layer's memory of keys and values that were read in one piece, of which these policies choose nothing: what
    the queries were does not matter, and two of them stand for all."""
    policy: Policy = lm.policy
    nothing = policy.empty(1, lm.groups, lm.width, k)
    return policy.attend(k.new_zeros(1, lm.heads, 2, lm.width), k, v, nothing, Place(layer, lm.depth, 0))[1]


def _save(path: Path, state: State, flops: float) -> None:
    for old in sorted(path.parent.glob("context-*.safetensors"), key=lambda file: file.stat().st_mtime)[: 1 - KEPT]:
        old.unlink()
    tensors = {f"{name}.{i}": layer[name].contiguous() for i, layer in enumerate(state.layers) for name in "kv"}
    save_file(tensors, path.with_suffix(".part"), {"flops": str(flops)})
    path.with_suffix(".part").replace(path)  # it appears whole


def _load(path: Path) -> tuple[list[Tensor], list[Tensor], float]:
    with safe_open(path, "pt") as file:
        layers = range(len(file.keys()) // 2)
        keys, values = ([file.get_tensor(f"{name}.{i}") for i in layers] for name in "kv")
        return keys, values, float(file.metadata()["flops"])
