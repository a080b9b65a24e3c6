"""Any saved language model, ready to decode with: `open_lm("smollm2")`, a Hugging Face folder, or one of Paceline's.

Models of Llama's kind get the lean forward pass (`huggingface/llama.py`), all others of Hugging Face their own.
"""

import inspect
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from paceline.context._contract import Policy
from paceline.core.discovery import find, part
from paceline.core.errors import PacelineError
from paceline.core.spec import Spec, check, parse, summands
from paceline.core.state import LM
from paceline.decode._contract import Strategy
from paceline.lm.checkpoint import PICKLES, SUMS, load_model, verify
from paceline.lm.decoder import Decoder
from paceline.lm.layers import LayeredDecoder, layered
from paceline.lm.pretrained import KNOWN, pretrained
from paceline.lm.quick import quicken
from paceline.lm.siblings import SIBLINGS, sibling
from paceline.tokens._contract import END

FAMILIES = ("decode", "context", "compress", "tokens")
"""What changes how a given model generates."""


@runtime_checkable
class Words(Protocol):
    """Text to tokens and back."""

    def encode(self, text: str) -> list[int]:
        """The text's tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The tokens' text; bytes that are no UTF-8, or not yet, show as replacement characters."""
        ...


class Bytes:
    """The tokens of models that read bytes: token i is byte i."""

    def encode(self, text: str) -> list[int]:
        """Its bytes; what a shell passed through undecoded comes back as it was."""
        return list(text.encode("utf-8", errors="surrogateescape"))

    def decode(self, ids: Sequence[int]) -> str:
        """See `Words.decode`."""
        return bytes(ids).decode("utf-8", errors="replace")


class Pieces:
    """A tokenizer of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """The tokens, with those that the tokenizer puts first."""
        return list(self.tokenizer(text.encode(errors="replace").decode()).input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """See `Words.decode`; special tokens are left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


@dataclass(frozen=True)
class Opened:
    """A model with what belongs to it."""

    name: str
    lm: LM
    words: Words
    ends: tuple[int, ...] = ()
    """Tokens that end a text."""


def open_lm(place: str) -> Opened:
    """The model in a folder, or a known one by name.

    Raises:
        PacelineError: there is none, it is broken, a pickle, or needs code of its own.
    """
    folder = Path(place)
    if not folder.exists():
        folder = pretrained(place) if place in KNOWN else sibling(place) if place in SIBLINGS else folder
    if not folder.exists() and "/" not in place:
        known = ", ".join((*KNOWN, *SIBLINGS))
        raise PacelineError(f"There is no folder {place}: give the folder of a saved model, or one of {known}.")
    if _kind(folder) in ("paceline", None):
        model, config = load_model(folder)
        if config.task == "token_text":
            return _in_tokens(place, folder, layered(model))
        if config.task != "text":
            raise PacelineError(f"{place} was trained on {config.task}, not on text: it does not read prompts.")
        return Opened(place, layered(model), Bytes())
    return _open_foreign(place, folder)


def _kind(folder: Path) -> str | None:
    """What `config.json` says the model is; None where nothing can be read, which `load_model` then explains."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
        return kind if isinstance(kind, str) else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _in_tokens(place: str, folder: Path, lm: Any) -> Opened:
    """One of Paceline's models that reads a tokenizer's tokens."""
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise PacelineError(f"{place} reads tokens: pip install 'paceline[hf]' to open it.") from error
    except Exception as error:  # transformers raises every kind for a tokenizer that is missing or broken
        reason = " ".join(str(error).split())[:200]
        raise PacelineError(f"The tokenizer in {place} cannot be loaded ({reason}): restore it.") from error
    lm.tokenizer = tokenizer  # grammars need its bytes
    end = tokenizer.eos_token_id
    return Opened(place, lm, Pieces(tokenizer), () if end is None else (end,))


def _open_foreign(place: str, folder: Path) -> Opened:
    if (folder / SUMS).is_file():
        verify(folder)
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles and not any(folder.glob("*.safetensors")):
        raise PacelineError(f"{place} holds a pickle ({pickles[0]}), which is never loaded: give one of safetensors.")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder on disk needs no hub
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise PacelineError(f"{place} is a Hugging Face model: pip install 'paceline[hf]' to open it.") from error
    from transformers.utils import logging

    from paceline.lm.huggingface.foreign import HuggingFaceLM
    from paceline.lm.huggingface.llama import Llama, refuse

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises every kind, for broken files and unknown models alike
        reason = " ".join(str(error).split())[:200]
        raise PacelineError(f"transformers cannot load {place} ({reason}): give a folder of safetensors.") from error
    ends = model.generation_config.eos_token_id
    ends = tuple(ends) if isinstance(ends, list) else () if ends is None else (ends,)
    try:
        refuse(model)
        lm: Any = Llama(model)
    except PacelineError:
        lm = HuggingFaceLM(model)
    lm.tokenizer = tokenizer  # grammars need its bytes
    return Opened(place, lm, Pieces(tokenizer), ends)


def strategy(text: str, opened: Opened) -> tuple[Opened, Strategy]:
    """What `text` names, ready for this model: a decoding strategy, or greedy under a cache policy or fewer bits.

    Args:
        text: such as `lookup(guesses=8)`, `quest(tokens=256)` or `proxy_tuning(expert='DIR', antiexpert='DIR')`;
            several in a row as `int8 + lookup(guesses=8)`, of which one at most is a decoding strategy.
        opened: the model.

    Returns:
        The model, changed where the method changes it, and how to decode with it.

    Raises:
        PacelineError: no such method or argument, or not with this model.
    """
    made: Strategy | None = None
    for part_of_it in summands(text):
        opened, how = _one(part_of_it, opened)
        if how is not None and made is not None:
            raise PacelineError(f"{text[:80]!r} names two ways to choose tokens: one model takes one.")
        made = how or made
    return opened, made or part("decode", "greedy")()


def _one(text: str, opened: Opened) -> tuple[Opened, Strategy | None]:
    """One method: the model under it, and the strategy if it is one."""
    spec = parse(text)
    family, name = find(spec.name)
    if family not in FAMILIES:
        raise PacelineError(f"{name} is one of {family}: decoding takes a method of {', '.join(FAMILIES)}.")
    kind = part(family, name)
    if family == "tokens":
        return _as_bytes(spec, kind, opened), None
    helpers: tuple[str, ...] = getattr(kind, "helpers", ())
    own = replace(spec, arguments={key: value for key, value in spec.arguments.items() if key not in helpers})
    check(own, kind, given=helpers)
    wanted = [n for n, p in inspect.signature(kind).parameters.items() if p.default is p.empty and n not in helpers]
    if missing := [argument for argument in wanted if argument not in own.arguments]:
        raise PacelineError(f"{name} needs {' and '.join(missing)}: write {name}({missing[0]}=...).")
    models = {helper: _helpers(name, helper, spec.arguments.get(helper)) for helper in helpers}
    built: Any = kind(**own.arguments, **models)
    if family == "decode":
        made: Strategy = built
        return opened, made
    if family == "context":
        return replace(opened, lm=under(opened, built)), None
    smaller: LM = built.apply(opened.lm.decoder if isinstance(opened.lm, LayeredDecoder) else opened.lm)
    return replace(opened, lm=layered(smaller) if isinstance(smaller, Decoder) else smaller), None


def _as_bytes(spec: Spec, kind: Any, opened: Opened) -> Opened:
    """The model as one of bytes."""
    if next(iter(inspect.signature(kind).parameters)) != "lm":
        raise PacelineError(f"{spec.name} joins several models: build it in Python, from paceline.tokens.{spec.name}.")
    if isinstance(opened.words, Bytes):
        raise PacelineError(f"{opened.name} reads bytes as it is: leave {spec.name} out.")
    check(spec, kind, given=("lm", "tokenizer", "start", "ends"))
    view = kind(opened.lm, getattr(opened.words, "tokenizer", None), **spec.arguments)
    return replace(opened, lm=view, words=Bytes(), ends=(END,))


def _helpers(name: str, helper: str, value: object) -> LM | list[LM]:
    """The models that an argument names, one or several, made quick: they are read a token at a time."""
    if isinstance(value, str):
        return quicken(open_lm(value).lm)
    if isinstance(value, tuple) and value and all(isinstance(place, str) for place in value):
        return [quicken(open_lm(place).lm) for place in value]
    raise PacelineError(f"{name} needs {helper}='DIR', the folder of a model.")


def under(opened: Opened, policy: Any) -> LM:
    """The model with a cache policy.

    Raises:
        PacelineError: its attention cannot be exchanged.
    """
    if isinstance(policy, Policy):
        exchange = getattr(opened.lm, "under", None)
        if exchange is None:
            raise PacelineError(f"{opened.name} has no cache that a policy could keep: give a model of Llama's kind.")
        changed: LM = exchange(policy)
        return changed
    prepared: LM = policy.prepare(opened.lm)
    return prepared
