"""Small models that share a known model's tokens and help it: their recipes, and where they are kept once trained.

`paceline train smollm2-draft` trains one into the cache; from then on its name opens it. Nothing is trained unasked.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from paceline.core.errors import PacelineError
from paceline.core.files import cache_folder
from paceline.lm.pretrained import KNOWN, pretrained

HEAD = "head.safetensors"
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class Sibling:
    """How one is trained, on text that comes with Python."""

    of: str
    """The known model whose tokens it reads."""
    role: str
    """`draft`: on all of the text. `expert`: the draft, tuned on the documentation. `reward`: the draft, trained to
    prefer documentation to code. `head`: what SpecDec++ foresees by whether the draft's guesses will be accepted."""
    tokens: int
    lr: float
    mixer: str = "attention"
    layers: int = 2
    parameters: int = 7_000_000
    length: int = 128
    batch: int = 8

    @property
    def folder(self) -> Path:
        """Its own in the cache: another recipe has another."""
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:8]
        return cache_folder() / "siblings" / f"{self.of}-{self.role}-{digest}"


SIBLINGS = {
    "smollm2-draft": Sibling("smollm2", "draft", tokens=600_000, lr=3e-3),
    "smollm2-expert": Sibling("smollm2", "expert", tokens=100_000, lr=1e-3),
    "smollm2-reward": Sibling("smollm2", "reward", tokens=100_000, lr=1e-3),
    "smollm2-head": Sibling("smollm2", "head", tokens=3_000, lr=1e-3),
}


def sibling(name: str) -> Path:
    """The folder of a sibling that was trained.

    Raises:
        PacelineError: it was not, with the command that does.
    """
    folder = SIBLINGS[name].folder
    if not trained(name):
        raise PacelineError(f"{name} is not trained yet: run `paceline train {name}` once, some minutes on two cores.")
    return folder


def trained(name: str) -> bool:
    """Whether it was trained here."""
    return (SIBLINGS[name].folder / "training.json").is_file()


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
