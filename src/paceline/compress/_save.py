"""Compressed models on disk: `save(lm, folder)`, and `load(folder, lm)` into the model that they were made of.

`maps.json` says what each changed map is and how the cache is kept, `tensors.safetensors` holds every tensor that is
not the plain model's, and `checksums.json` the sha256 of both, so that nothing damaged is ever used.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read
from safetensors.torch import save as written
from torch import Tensor, nn

from paceline.compress._cache import CodedCache
from paceline.compress._contract import exchange_linears
from paceline.compress._grid import unpack
from paceline.compress._low import PLAIN, Kept
from paceline.compress._packed import Inputs, PackedLinear
from paceline.core.errors import PacelineError
from paceline.core.files import sha256, write_atomic, write_json
from paceline.core.state import LM

MAPS, TENSORS, SUMS = "maps.json", "tensors.safetensors", "checksums.json"


def save(lm: LM, folder: Path) -> None:
    """Write a model that a way to few bits has made.

    Raises:
        PacelineError: it is none, or the folder cannot be written.
    """
    if not isinstance(lm, nn.Module):
        raise PacelineError(f"{type(lm).__name__} is no compressed model: apply rtn, gptq or spinquant to one first.")
    changed = {name: m.settings for name, m in lm.named_modules() if isinstance(m, (PackedLinear, Kept))}
    if not changed:
        raise PacelineError(f"{type(lm).__name__} has no compressed maps: apply rtn, gptq or spinquant to it first.")
    policy = getattr(lm, "policy", None)
    cache = {"bits": policy.bits, "turned": policy.turned} if isinstance(policy, CodedCache) else None
    tensors = {name: tensor.detach().contiguous() for name, tensor in _tensors(lm).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / MAPS, {"maps": changed, "cache": cache})
        write_atomic(folder / TENSORS, written(_unshared(tensors)))
        write_json(folder / SUMS, {name: sha256(folder / name) for name in (MAPS, TENSORS)})
    except OSError as error:
        reason = error.strerror or error
        raise PacelineError(f"Cannot write {folder} ({reason}): make room, or choose another folder.") from error


def load(folder: Path, lm: LM) -> LM:
    """The saved model, built on a plain one of the same architecture, which stays as it is.

    Args:
        folder: where `save` wrote.
        lm: the model that was compressed, or another of its shape: every tensor comes from the folder.

    Raises:
        PacelineError: files are missing, damaged, or of another model.
    """
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        damaged = [name for name in (MAPS, TENSORS) if sha256(folder / name) != sums[name]]
        if damaged:
            raise PacelineError(f"{folder / damaged[0]} does not match its checksum: compress the model again.")
        saved = json.loads((folder / MAPS).read_text(encoding="utf-8"))
        tensors = read((folder / TENSORS).read_bytes())
        return _built(lm, saved["maps"], saved["cache"], tensors)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError, SafetensorError) as error:
        raise PacelineError(f"{folder} holds no compressed model of this kind ({error}): compress it again.") from error


def _built(lm: LM, maps: dict[str, dict[str, Any]], cache: dict[str, Any] | None, tensors: dict[str, Tensor]) -> LM:
    names = {id(module): name for name, module in lm.named_modules()} if isinstance(lm, nn.Module) else {}
    if not set(maps) <= set(names.values()):
        raise ValueError(f"there is no map {min(set(maps) - set(names.values()))}")

    def make(linear: nn.Linear) -> nn.Module:
        name = names[id(linear)]
        if name not in maps:
            bare = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None, "meta")
            bare.weight, bare.bias = linear.weight, linear.bias
            return bare
        facts, bias = maps[name], tensors.get(f"{name}.bias")
        inputs = Inputs(facts["activations"], facts["group"], facts["turned"])
        if facts["bits"] == PLAIN:
            return Kept(tensors[f"{name}.weight"], bias, inputs)
        packed = tensors[f"{name}.packed"]
        codes = packed if facts["bits"] == 8 else unpack(packed, facts["width"]).to(torch.int8) - 8
        return PackedLinear(codes, tensors[f"{name}.scale"], bias, facts["bits"], inputs)

    twin: Any = exchange_linears(lm, make)
    known = _tensors(twin)
    if {name: tensor.shape for name, tensor in known.items()} != {name: t.shape for name, t in tensors.items()}:
        raise ValueError("its tensors are of other shapes")
    for name, tensor in tensors.items():
        place, _, last = name.rpartition(".")
        _put(twin.get_submodule(place), last, tensor)
    if cache is not None:
        twin.policy = CodedCache(cache["bits"], cache["turned"])
    return twin  # type: ignore[no-any-return]


def _tensors(lm: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a model by name: parameters, buffers, and those that are plain attributes."""
    found: dict[str, Tensor] = {}
    for place, module in lm.named_modules():
        own = {**module._parameters, **module._buffers, **vars(module)}
        prefix = f"{place}." if place else ""
        found |= {f"{prefix}{name}": tensor for name, tensor in own.items() if isinstance(tensor, Tensor)}
    return found


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Without touching what the module shares with the plain model."""
    for shared in (module._parameters, module._buffers):
        if name in shared:
            old, shared = shared[name], dict(shared)
            shared[name] = nn.Parameter(tensor, requires_grad=False) if isinstance(old, nn.Parameter) else tensor
            vars(module)["_parameters" if isinstance(old, nn.Parameter) else "_buffers"] = shared
            return
    vars(module)[name] = tensor


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors whose memory another has too, which the format refuses."""
    seen: set[int] = set()
    made = {}
    for name, tensor in tensors.items():
        made[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return made
