"""Small models that share a known model's tokens: what their folders hold, and where those that help it are kept."""

import shutil
from pathlib import Path

from paceline.core.errors import PacelineError
from paceline.lm.pretrained import KNOWN, pretrained

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def known_or_folder(place: str) -> Path:
    """The folder of a model: a known one by name, or the folder itself.

    Raises:
        PacelineError: there is none.
    """
    if Path(place).is_dir():
        return Path(place)
    if place in KNOWN:
        return pretrained(place)
    raise PacelineError(f"There is no folder {place}: give the folder of a saved model, or one of {', '.join(KNOWN)}.")


def copy_tokenizer(source: Path, target: Path) -> None:
    """What a model's folder needs besides weights to be read by text."""
    for name in FILES:
        if (source / name).is_file() and source != target:
            shutil.copyfile(source / name, target / name)
