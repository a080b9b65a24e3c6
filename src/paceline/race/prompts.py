"""What ways to decode race on: texts to go on with, and the last part of texts as they are."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.data._untrained import Untrained


class Texts(Untrained):
    """Some of the texts, drawn by the seed, for a given model. Their tokens are the model's matter.

    Args:
        texts: of which a seed draws.
        model: a folder, or a known model's name.
        tokens: how many are asked at the end of each.
        items: how many texts a seed draws.

    Raises:
        PacelineError: no text, or too few tokens.
    """

    ceiling = None

    def __init__(self, texts: Sequence[str], model: str, tokens: int = 64, items: int = 4) -> None:
        self.texts = tuple(text for text in texts if text.strip())
        if not self.texts:
            raise PacelineError("There is no prompt: give a file with a text in it, prompts apart by empty lines.")
        if tokens < 2 or items < 1:
            raise PacelineError(f"Decoding needs at least 2 tokens and 1 prompt, not {tokens} and {items}.")
        self.model, self.length, self.items = model, tokens, min(items, len(self.texts))
        self.vocab_size = 0

    def drawn(self, seed: int) -> list[str]:
        """The texts of a seed."""
        generator = torch.Generator().manual_seed(derive(seed, "prompts"))
        return [self.texts[i] for i in torch.randperm(len(self.texts), generator=generator)[: self.items].tolist()]

    @property
    def drawing(self) -> str:
        """Which texts, for `describe`."""
        digest = hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()[:8]
        return f"{self.items} of {len(self.texts)} prompts (digest {digest})"


class Prompts(Texts):
    """Continuing prompts, in times greedy decoding's speed."""

    name = "decoding"
    title = "Decoding"
    metric = "times greedy's speed"
    better = "higher"
    floor = None

    def describe(self) -> str:
        """See `Task.describe`."""
        return f"Continue {self.drawing} by {self.length} tokens with {self.model}; a seed draws the prompts."


class Continuations(Texts):
    """The last part of each text as it is: read token by token, as if it were generated, after the rest as a prompt.

    Args:
        aware: the contestants that choose what to keep of a prompt knowing its end, for `describe`.
    """

    name = "continuation"
    title = "Continuation as written"
    metric = "bits per byte"
    better = "lower"
    floor = 8.0

    def __init__(
        self, texts: Sequence[str], model: str, tokens: int = 64, items: int = 4, aware: Sequence[str] = ()
    ) -> None:
        super().__init__(texts, model, tokens, items)
        self.aware = tuple(aware)

    def describe(self) -> str:
        """See `Task.describe`."""
        known = f" {', '.join(self.aware)} chose what to keep by the prompt's last tokens." if self.aware else ""
        return f"Predict the last {self.length} tokens of {self.drawing} with {self.model}; a seed draws them.{known}"


def read_prompts(path: Path) -> list[str]:
    """The prompts in a file: texts apart by empty lines; in .jsonl, the field `prompt` or `text` of each line.

    Raises:
        PacelineError: it cannot be read, or has none.
    """
    try:
        content = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise PacelineError(f"Cannot read --prompts {path} ({error.strerror}).") from error
    if path.suffix == ".jsonl":
        return [_field(line, path) for line in content.splitlines() if line.strip()]
    return [text for text in content.split("\n\n") if text.strip()]


def _field(line: str, path: Path) -> str:
    try:
        record = json.loads(line)
        text = record.get("prompt", record.get("text"))
    except (ValueError, AttributeError, RecursionError) as error:
        raise PacelineError(f"A line of {path} is not a JSON object with a prompt: {line[:60]!r}.") from error
    if not isinstance(text, str):
        raise PacelineError(f"A line of {path} has no text under `prompt` or `text`: {line[:60]!r}.")
    return text
