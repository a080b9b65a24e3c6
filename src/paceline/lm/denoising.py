"""Decoders under an objective of the family `objectives`: a task around a text task, and infilling."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.discovery import find, part
from paceline.core.errors import PacelineError
from paceline.core.seeds import derive
from paceline.core.spec import check, parse
from paceline.core.state import LM
from paceline.data._contract import Batch, Task
from paceline.lm.config import Config, build
from paceline.lm.decoder import Decoder
from paceline.objectives._contract import Objective
from paceline.objectives.ul2 import UL2


class Denoising(Task):
    """A text task under an objective: `lm.train.train` takes it as it is.

    Args:
        text: whose sequences are windows, of its length and one token more.
        objective: over the text's vocabulary.

    Raises:
        PacelineError: the vocabularies differ, or the objective cannot work on windows of that length.
    """

    name = "denoising"
    title = "Text under an objective"
    metric = "bits per asked token"
    better = "lower"
    ceiling = None

    def __init__(self, text: Task, objective: Objective) -> None:
        if objective.vocab_size != text.vocab_size:
            sizes = f"{objective.vocab_size} tokens, and the text has {text.vocab_size}"
            raise PacelineError(f"{type(objective).__name__} is over {sizes}: give it vocab_size={text.vocab_size}.")
        self.text, self.objective, self.items = text, objective, text.items
        self.vocab_size = text.vocab_size + objective.extra_tokens
        self.length = objective.length(text.length + 1)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Sequences made of the text's; both follow from the generator."""
        return self._under(self.text.sample(size, generator), generator)

    def evaluation(self) -> Batch:
        """The text's own, corrupted always alike."""
        return self._under(self.text.evaluation(), torch.Generator().manual_seed(derive(0, "evaluation", self.name)))

    def describe(self) -> str:
        """See `Task.describe`."""
        made = type(self.objective).__name__
        settings = ", ".join(f"{k}={v!r}" for k, v in vars(self.objective).items() if isinstance(v, (int, float)))
        return f"{self.text.describe().removesuffix('.')}, under {made} ({settings})."

    @property
    def floor(self) -> float | None:
        """The text's: what is asked besides is easier."""
        return self.text.floor

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Tokens of the text as it shows them, others by what they are for."""
        own = self.objective.vocab_size
        names = ["<end>", "<R>", "<S>", "<X>"] + [f"<{n}>" for n in range(self.objective.sentinels)]
        plain = iter(self.text.show(ids[ids < own]))
        return [next(plain) if token < own else names[token - own] for token in ids.tolist()]

    def _under(self, batch: Batch, generator: torch.Generator) -> Batch:
        windows = torch.cat((batch.ids, batch.targets[:, -1:]), 1)
        made = self.objective.apply(windows, generator)
        return Batch(made.inputs, made.targets)


def objective_of(text: str) -> Objective:
    """The objective over bytes that `text` names, such as `ul2(scale=4)`.

    Raises:
        PacelineError: no such objective or argument, or a setting out of its range.
    """
    spec = parse(text)
    kind = part("objectives", find(spec.name, "objectives")[1])
    check(spec, kind, given=("vocab_size",))
    made: Objective = kind(vocab_size=256, **spec.arguments)
    return made


@torch.no_grad()
def widen(model: Decoder, config: Config, extra: int) -> tuple[Decoder, Config]:
    """A copy of a model that knows `extra` more tokens: to go on with a causal model under another objective.

    The new tokens begin as the mean of the old ones and a little noise, from torch's global generator.
    """
    wider = replace(config, vocab_size=config.vocab_size + extra)
    made = build(wider)
    old = model.state_dict()
    key = "embedding.weight"
    mean = old[key].mean(0, keepdim=True)
    noise = old[key].std() * 0.1 * torch.randn(extra, old[key].shape[1])
    made.load_state_dict({**old, key: torch.cat((old[key], mean + noise))})
    return made, wider


@torch.no_grad()
def infill(
    lm: LM, objective: UL2, left: Sequence[int], right: Sequence[int], tokens: int = 64, mode: str = "R"
) -> list[int]:
    """What a model puts between two texts, token by token the likeliest, until it closes the gap.

    Args:
        lm: trained under the objective.
        objective: names END, modes and sentinels.
        left: tokens before the gap.
        right: tokens behind it.
        tokens: at most so many.
        mode: `R` for a short gap, `X` for a long one.

    Raises:
        PacelineError: there is no text beside the gap, or the model has other tokens.
    """
    if not (left or right) or tokens < 1:
        raise PacelineError("There is nothing to fill in: give text to the left or the right, and tokens of 1 or more.")
    if lm.vocab_size != objective.vocab_size + objective.extra_tokens:
        raise PacelineError(
            f"A model of {lm.vocab_size} tokens was not trained under this objective, which has "
            f"{objective.vocab_size + objective.extra_tokens}: give the objective's own settings."
        )
    first = objective.sentinel(0)
    read = [objective.mode(mode), *left, first, *right, objective.end, first]
    made: list[int] = []
    logits, state = lm(torch.tensor([read]), None)
    while len(made) < tokens:
        token = int(logits[0, -1].argmax())
        if token >= objective.vocab_size:
            break
        made.append(token)
        logits, state = lm(torch.tensor([[token]]), state)
    return made
