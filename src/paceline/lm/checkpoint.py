"""Models and training states on disk: JSON and safetensors, atomic, with checksums. Nothing is ever unpickled."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.files import sha256, sync_folder, write_atomic, write_json
from paceline.lm.byte_tokenizer import tokenizer_files
from paceline.lm.config import Config, build
from paceline.lm.decoder import Decoder

WEIGHTS, CONFIG, SUMS = "model.safetensors", "config.json", "checksums.json"
TRAINING = ("training.json", "training.safetensors")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def save_model(model: Decoder, config: Config, folder: Path) -> None:
    """Write `config.json`, `model.safetensors` and their checksums into `folder`; for text, a tokenizer too.

    A new folder appears whole. Over an old model, a crash between the renames leaves a mixture, which is refused.

    Raises:
        PacelineError: the folder cannot be written; an old model is then still whole, but for a crash as above.
    """
    files = {CONFIG: json.dumps(config.to_dict(), indent=1).encode() + b"\n", WEIGHTS: save(_weights(model))}
    if config.task == "text":
        files |= tokenizer_files()
    _write_folder(folder, files)


def load_model(folder: Path) -> tuple[Decoder, Config]:
    """The model saved in `folder`, ready to use.

    Raises:
        PacelineError: not a Paceline model, a pickle, a broken file, or parts that are unknown here.
    """
    _refuse_foreign(folder)
    verify(folder)
    try:
        config = Config.from_dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        weights = load((folder / WEIGHTS).read_bytes())
    except (ValueError, SafetensorError) as error:
        raise PacelineError(f"{folder} is broken ({error}): restore it, or train the model again.") from error
    with torch.device("meta"):  # a config that asks for more memory than there are weights is refused before it gets it
        shapes = {name: tensor.shape for name, tensor in build(config).state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        raise PacelineError(f"The weights in {folder} do not fit its config.json: restore both from one source.")
    model = build(config)
    model.load_state_dict(weights)
    return model.eval(), config


def save_training(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a training state as `folder/step-<n>` and keep the one before it, in case this one is damaged later."""
    files = {
        TRAINING[0]: json.dumps({"step": step, **facts}, allow_nan=False).encode(),
        TRAINING[1]: save({name: t.detach().contiguous() for name, t in tensors.items()}),
    }
    this = folder / f"step-{step:010d}"
    _write_folder(this, files)
    kept = [old for old in _steps(folder) if old.name <= this.name][:2]  # a later one was damaged, or we were not here
    for old in (*_steps(folder), *folder.glob(".step-*")):  # the hidden ones are of a process that was killed
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)


def load_training(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest training state in `folder` that is whole, or None where there is none.

    Raises:
        PacelineError: there are states, but every one is damaged.
    """
    damaged: list[str] = []
    for step in _steps(folder):
        try:
            verify(step, TRAINING)
            facts = json.loads((step / TRAINING[0]).read_text(encoding="utf-8"))
            return load((step / TRAINING[1]).read_bytes()), facts
        except (PacelineError, OSError, ValueError, SafetensorError) as error:
            damaged.append(f"{step.name}: {error}")
    if damaged:
        raise PacelineError(f"Every checkpoint in {folder} is damaged ({damaged[0]}): delete the folder to start anew.")
    return None


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _weights(model: Decoder) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """All files and their checksums: in a temporary folder that is then renamed, or one by one over an old one."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{folder.name}."
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix, ignore_cleanup_errors=True) as work:
            temporary = Path(work)
            for name, content in files.items():
                write_atomic(temporary / name, content)
            write_json(temporary / SUMS, {name: sha256(temporary / name) for name in files})
            os.chmod(temporary, 0o755)
            if folder.exists():  # its other files stay; the checksums come last and tell a mixture apart
                for name in (*files, SUMS):
                    os.replace(temporary / name, folder / name)
                sync_folder(folder)
            else:
                os.replace(temporary, folder)
                sync_folder(folder.parent)
    except OSError as error:
        reason = error.strerror or error
        raise PacelineError(f"Cannot write {folder} ({reason}): make room, or choose another folder.") from error


def verify(folder: Path, names: Sequence[str] = (CONFIG, WEIGHTS)) -> None:
    """Refuse files that are not those that their folder's checksums speak of; by default a model's.

    Raises:
        PacelineError: one of them, or the checksums, cannot be read, or one differs.
    """
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        wrong = [name for name in names if sha256(folder / name) != sums[name]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PacelineError(f"{folder} is incomplete: its checksums or a file they name cannot be read.") from error
    if wrong:
        raise PacelineError(f"{folder / wrong[0]} does not match its checksum: the file was damaged or changed.")


def _refuse_foreign(folder: Path) -> None:
    if folder.is_file():
        raise PacelineError(f"{folder} is a file: give the folder of a saved model. Pickles are never loaded.")
    if not folder.is_dir():
        raise PacelineError(f"There is no folder {folder}: give the folder of a saved model.")
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        pickles = [p.name for pattern in PICKLES for p in folder.glob(pattern)]
        reason = (
            f"holds a pickle ({pickles[0]}), which is never loaded" if pickles else f"has no {CONFIG} and {WEIGHTS}"
        )
        raise PacelineError(f"{folder} {reason}: give a folder that `paceline train` or `race --keep` wrote.")
    try:
        kind = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError, OSError, RecursionError) as error:
        raise PacelineError(f"{folder / CONFIG} is not readable JSON: restore it, or train the model again.") from error
    if kind != "paceline":
        raise PacelineError(f"{folder} is a model of type {kind!r}, not a Paceline model.")
