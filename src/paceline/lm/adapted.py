"""Given models made ready to go on training in the one loop: any Hugging Face causal LM, or one of Paceline's.

`ready(place)` opens it with its weights in float32 and open to change, which `lm.open` does not: that is for decoding.
What came of it is saved in the form that it had, so that `lm.open` and transformers open it again.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from paceline.core.errors import PacelineError
from paceline.core.files import sha256, write_json
from paceline.data._contract import Task
from paceline.data.text import Text
from paceline.data.token_text import TokenText
from paceline.lm.checkpoint import PICKLES, SUMS, load_model, save_model, verify
from paceline.lm.config import Config, build
from paceline.lm.decoder import Decoder, Layer
from paceline.lm.pretrained import KNOWN
from paceline.lm.siblings import copy_tokenizer, known_or_folder
from paceline.mixers._contract import Flops

GENERATION = "generation_config.json"


class Foreign(Decoder):
    """A causal LM of transformers as `lm.train` and `lm.evaluate` want one: logits of whole sequences.

    Args:
        model: the LM; what is trained of it is a matter of its parameters' `requires_grad`.
    """

    def __init__(self, model: Any) -> None:
        nn.Module.__init__(self)
        self.model = model
        self.vocab_size = model.config.vocab_size

    @property
    def stack(self) -> list[Layer]:
        """None of Paceline's."""
        return []

    def logits(self, ids: Int[Tensor, "b t"], prompt: int = 0) -> Float[Tensor, "b t v"]:
        """See `Decoder.logits`."""
        logits: Tensor = self.model(ids, use_cache=False).logits
        return logits

    def flops(self, batch: int, length: int) -> Flops:
        """Not known from the outside: `step_flops` counts."""
        return Flops(0.0)


@dataclass(frozen=True)
class Ready:
    """A model to train, and what belongs to it."""

    place: str
    folder: Path
    model: Decoder
    """What the training loop is given."""
    inner: nn.Module
    """What an adapter is applied to: the model itself, with its own names."""
    prefix: str
    """Before those names, in the Hugging Face model that holds it."""
    save_to: Callable[[Path], None]

    def save(self, folder: Path) -> None:
        """Write the model as it is now, with its tokenizer and checksums, for `paceline generate` and transformers.

        Raises:
            PacelineError: the folder cannot be written.
        """
        try:
            self.save_to(folder)
            copy_tokenizer(self.folder, folder)
            named = sorted(p for p in folder.iterdir() if p.is_file() and p.name != SUMS)
            for path in named:
                path.chmod(0o644)  # transformers makes weights private; models are to be shared
            write_json(folder / SUMS, {path.name: sha256(path) for path in named})
        except OSError as error:
            raise PacelineError(f"Cannot write {folder} ({error.strerror}): make room, or choose another.") from error


def ready(place: str) -> Ready:
    """The model in a folder, or a known one by name, ready to be trained.

    Raises:
        PacelineError: there is none, it is broken, a pickle, compressed, or not one of text.
    """
    folder = known_or_folder(place)
    if _settings(folder).get("model_type") in ("paceline", None):
        model, config = load_model(folder)
        if config.task not in (Text.name, TokenText.name):
            raise PacelineError(f"{place} was trained on {config.task}, not on text: it cannot be adapted to text.")
        return Ready(place, folder, model.train(), model, "model.", lambda to: save_model(model, config, to))
    inner = _foreign(place, folder)

    def save(to: Path) -> None:
        inner.save_pretrained(to, max_shard_size="1000GB")

    return Ready(place, folder, Foreign(inner).train(), inner, "", save)


def shell(place: str) -> nn.Module:
    """The model without its weights, on the meta device: enough to see what an adapter finds in it.

    Raises:
        PacelineError: there is none, or it cannot be built.
    """
    folder = known_or_folder(place)
    settings = _settings(folder)
    if settings.get("model_type") in ("paceline", None):
        with torch.device("meta"):
            return build(Config.from_dict(settings)) if settings else ready(place).inner
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder on disk needs no hub
    try:
        from transformers import AutoConfig, AutoModelForCausalLM

        with torch.device("meta"):
            made: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
            return made
    except Exception as error:  # transformers raises every kind, for broken files and unknown models alike
        reason = " ".join(str(error).split())[:200]
        raise PacelineError(f"transformers cannot build {place} ({reason}): give a folder of safetensors.") from error


def text_task(place: str, corpus: Path, length: int) -> Task:
    """The prepared text as the model reads it: in bytes, or in its own tokens.

    Raises:
        PacelineError: the model has no tokenizer that is known here, or the text is too short.
    """
    folder = known_or_folder(place)
    settings = _settings(folder)
    in_bytes = settings.get("model_type") in ("paceline", None) and settings.get("task") != TokenText.name
    return Text(corpus, length) if in_bytes else TokenText(corpus, folder, length)


def _settings(folder: Path) -> dict[str, Any]:
    """`config.json`; empty where it cannot be read, which `load_model` then explains."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _foreign(place: str, folder: Path) -> Any:
    if (folder / SUMS).is_file() and place not in KNOWN:  # a known one was verified when it was found
        verify(folder)
    if any(path for pattern in PICKLES for path in folder.glob(pattern)) and not any(folder.glob("*.safetensors")):
        raise PacelineError(f"{place} holds a pickle, which is never loaded: give a folder of safetensors.")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder on disk needs no hub
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError as error:
        raise PacelineError(f"{place} is a Hugging Face model: pip install 'paceline[hf]' to open it.") from error
    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises every kind, for broken files and unknown models alike
        reason = " ".join(str(error).split())[:200]
        raise PacelineError(f"transformers cannot load {place} ({reason}): give a folder of safetensors.") from error


UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
}
"""What torch's counter leaves out; its backward pass is left out still."""


def flops_per_token(model: Decoder, ids: Int[Tensor, "b t"]) -> float:
    """Operations of training on a token: matrix products that torch counts on these sequences, forward and backward.

    Counted, because it depends on what is frozen: no products for the gradients of frozen weights, and none below the
    lowest that is trained. A few tokens will do, but for attention's share, which grows with the length.
    """
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        logits = model.logits(ids[:, :-1])
        functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    model.zero_grad()
    return counter.get_total_flops() / (len(ids) * (ids.shape[1] - 1))
