"""From names to models: which mixers, how wide, and how to hit a number of parameters."""

import inspect
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from paceline.core.discovery import part
from paceline.core.errors import PacelineError
from paceline.core.spec import check, parse
from paceline.lm.decoder import Decoder, MakeFeedForward, count_parameters
from paceline.lm.encoder import Encoder
from paceline.mixers._contract import Mixer

WIDTH_STEP = 8
HIDDEN_RATIO = 2.0
LARGEST, DEEPEST = 2_000_000_000, 1_000
FORMS = ("decoder", "encoder")


@dataclass(frozen=True)
class Config:
    """Everything needed to build a decoder again; saved as `config.json`."""

    vocab_size: int
    d_model: int
    hidden: int
    """Width of the feed-forwards."""
    plan: tuple[str, ...]
    """The mixer of each layer, such as `attention(window=64)`."""
    task: str = "text"
    """What the model was trained on; `text` models read and write bytes."""
    form: str = "decoder"
    """`decoder`, a language model, or `encoder`, which reads a sequence both ways and gives one answer."""
    feed_forward: str = "swiglu"
    """The block after each mixer, such as `moe(experts=4)`."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model_type": "paceline",
            "architectures": ["PacelineForCausalLM"] if self.form == "decoder" else [],
            **asdict(self),
            "plan": list(self.plan),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """The inverse of `to_dict`.

        Raises:
            PacelineError: a field is missing or unknown, or has another type.
        """
        values = {k: v for k, v in values.items() if k not in ("model_type", "architectures")}
        try:
            plan, names = values["plan"], [values.get("task", "text"), values.get("feed_forward", "swiglu")]
            sizes = [values[name] for name in ("vocab_size", "d_model", "hidden")]
            if not all(type(n) is int and 0 <= n < 2**31 for n in sizes) or 0 in sizes[:2]:
                raise TypeError("its sizes must be positive whole numbers")
            if not isinstance(plan, list) or not plan or not all(isinstance(s, str) for s in plan + names):
                raise TypeError("its plan must be a list of names, and its task a name")
            if len(plan) > DEEPEST:
                raise TypeError(f"its plan has {len(plan):,} layers, and {DEEPEST:,} are the most")
            if values.get("form", "decoder") not in FORMS:
                raise TypeError(f"its form must be one of {', '.join(FORMS)}")
            return cls(**{**values, "plan": tuple(plan)})
        except KeyError as error:
            raise PacelineError(f"This config.json does not describe a Paceline model: it lacks {error}.") from error
        except TypeError as error:
            raise PacelineError(f"This config.json does not describe a Paceline model: {error}.") from error


def mixer(name: str, d_model: int) -> Mixer:
    """The mixer written as `name`, e.g. `attention(window=64)`, of width d_model.

    Raises:
        PacelineError: unknown name or argument, or sizes that do not fit.
    """
    spec = parse(name)
    kind = part("mixers", spec.name)
    check(spec, kind, given=("d_model",))
    return kind(d_model, **spec.arguments)  # type: ignore[no-any-return]


def feed_forward(name: str) -> MakeFeedForward:
    """What makes the block written as `name`, e.g. `moe(experts=4)`, from a width and a hidden width.

    Raises:
        PacelineError: unknown name or argument, or a block that is no feed-forward.
    """
    spec = parse(name)
    kind = part("blocks", spec.name)
    if not {"d_model", "hidden"} <= inspect.signature(kind).parameters.keys():
        raise PacelineError(f"{spec.name} is no feed-forward: it has no hidden width.")
    check(spec, kind, given=("d_model", "hidden"))
    return partial(kind, **spec.arguments)


def build(config: Config) -> Decoder:
    """The model of a config, freshly initialised from torch's global generator.

    Raises:
        PacelineError: an unknown mixer, or sizes and arguments with which nothing can be built.
    """
    if not config.plan:
        raise PacelineError("A model needs at least one layer: name a mixer.")
    try:
        mixers = [mixer(name, config.d_model) for name in config.plan]
        kind = Encoder if config.form == "encoder" else Decoder
        return kind(config.vocab_size, mixers, config.hidden, feed_forward(config.feed_forward))
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        plan, reason = ", ".join(dict.fromkeys(config.plan)), str(error).partition("\n")[0]
        raise PacelineError(f"Cannot build {plan[:200]} at width {config.d_model}: {reason}") from error


def check_length(config: Config, length: int) -> None:
    """Refuse to train a plan on sequences of `length` tokens if a part of it would then be another one.

    Raises:
        PacelineError: with the mend.
    """
    with torch.device("meta"):
        for name in dict.fromkeys(config.plan):
            mixer(name, config.d_model).check_length(length)


def fit(
    plan: Sequence[str],
    vocab_size: int,
    parameters: int,
    task: str = "text",
    form: str = "decoder",
    feed_forward: str = "swiglu",
) -> Config:
    """The config of a plan whose number of parameters is nearest to `parameters`.

    The width grows in steps of 8 with feed-forwards twice as wide; then the feed-forwards take up the slack.

    Raises:
        PacelineError: no width fits the plan, even the smallest model is more than 10 % too large, or the size is
            beyond LARGEST or DEEPEST.
    """
    if parameters > LARGEST or len(plan) > DEEPEST:
        raise PacelineError(
            f"{len(plan):,} layers of {parameters:,} parameters in all are more than one machine trains from scratch: "
            f"stay below {DEEPEST:,} layers and {LARGEST:,} parameters."
        )
    best: tuple[int, Config] | None = None
    refused: PacelineError | None = None
    width = WIDTH_STEP
    while True:
        config = Config(vocab_size, width, int(HIDDEN_RATIO * width), tuple(plan), task, form, feed_forward)
        try:
            size = _size(config)
        except PacelineError as error:
            refused = error
            if width >= 256 and best is None:
                raise refused from error
        else:
            if best is None or abs(size - parameters) < abs(best[0] - parameters):
                best = (size, config)
            if size > parameters:
                break
            # A size grows at most with the square of the width: what surely is too narrow is left out, but for the
            # last 256, among which a plan finds a width that it can divide.
            sure = int(width * math.sqrt(parameters / size)) // WIDTH_STEP * WIDTH_STEP
            width = max(width, sure - 256)
        width += WIDTH_STEP
    assert best is not None
    size, config = best
    each = _size(replace(config, hidden=config.hidden + 1)) - size
    hidden = config.hidden + round((parameters - size) / each)
    config = replace(config, hidden=max(hidden, WIDTH_STEP))
    if (smallest := _size(config)) > 1.1 * parameters:
        raise PacelineError(
            f"{plan[0]} over a vocabulary of {vocab_size} needs at least {smallest:,} parameters: "
            f"ask for more than {parameters:,}."
        )
    return config


def _size(config: Config) -> int:
    """Parameters of the decoder. Of layers that are alike one is built: a thousand would take seconds."""
    with torch.device("meta"):  # shapes only, no memory and no random numbers
        first = build(replace(config, plan=config.plan[:1]))
        alone = {name: build(replace(config, plan=(name,))).layers for name in set(config.plan)}
    layers = sum(times * count_parameters(alone[name]) for name, times in Counter(config.plan).items())
    return count_parameters(first) - count_parameters(first.layers) + layers
