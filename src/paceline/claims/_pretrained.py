"""Contestants that change a pretrained language model without training it, and long texts in its own tokens."""

import math
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.data._contract import IGNORE, Batch, Task
from paceline.data._corpus import open_corpus
from paceline.lm.pretrained import pretrained
from paceline.race.contestant import Contestant, Event, Job, Outcome, Report

TINY = "tiny"
"""In place of a pretrained model: a small one at random, with bytes as tokens, to see that everything runs."""

UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
}
"""What torch's counter of operations leaves out; by shapes, so that causal attention counts as the whole square."""

Meters = Callable[[], dict[str, float]]
Change = Callable[[Any], Meters]
"""Changes a loaded model in place, and returns how to read what the change did there. A module's function. Chance that
it makes use of follows the cell's seed."""


class Excerpts(Task):
    """Excerpts of a corpus in the tokens of a pretrained model; the later part is asked, in bits per byte.

    Args:
        folder: where `data._corpus.prepare` wrote the corpus.
        model: whose tokens; see `lm.pretrained`.
        length: tokens of an excerpt, t.
        asked: how many of the last tokens are to be predicted.
        repeat: the asked tokens also open the excerpt, so that they can be looked up there.

    Raises:
        PacelineError: `asked` is not between 1 and `length`, or half of it where the opening is repeated.
    """

    metric = "bits per byte"
    better = "lower"
    items = 1
    floor = 8.0
    ceiling = None

    def __init__(self, folder: Path, model: str, length: int, asked: int, repeat: bool = False) -> None:
        if not 1 <= asked < length / (2 if repeat else 1):
            raise PacelineError(f"Of {length} tokens {asked} cannot be asked: give fewer.")
        self.folder, self.model, self.length, self.asked, self.repeat = folder, model, length, asked, repeat
        self.name = "repeat" if repeat else "long_text"  # type: ignore[misc]
        self.title = "Repeated text" if repeat else "Long text"  # type: ignore[misc]

    @property
    def vocab_size(self) -> int:  # type: ignore[override]
        """Of the model's tokenizer."""
        return 256 if self.model == TINY else len(_tokenizer(self.model))

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Excerpts that begin anywhere in the corpus."""
        ids = torch.stack([self._excerpt(generator) for _ in range(size)])
        targets = ids.roll(-1, dims=1)
        targets[:, : -self.asked - 1] = IGNORE
        targets[:, -1] = IGNORE
        return Batch(ids, targets)

    def evaluation(self) -> Batch:
        """Those of no seed."""
        return self.sample(self.items, torch.Generator().manual_seed(0))

    def score(self, logits: Float[Tensor, "b n v"], targets: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """Bits per byte of the text that is asked; logits may be those of the last tokens only."""
        targets = targets[:, -logits.shape[1] :]
        losses = nn.functional.cross_entropy(logits.transpose(1, 2).float(), targets, reduction="none").sum(dim=1)
        sizes = [self._bytes(row[row != IGNORE]) for row in targets]
        return losses / math.log(2) / torch.tensor(sizes, device=losses.device)

    def describe(self) -> str:
        """See `Task.describe`."""
        looked_up = ", which open the excerpt too" if self.repeat else ""
        digest = open_corpus(self.folder).digest[:8]
        return f"Predict the last {self.asked} of {self.length} tokens of {self.model}{looked_up} (digest {digest})."

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Each token's text."""
        return [self._text(token.view(1)) for token in ids]

    def _excerpt(self, generator: torch.Generator) -> Int[Tensor, " t"]:
        pieces = [self._read(self.asked, generator)] if self.repeat else []
        pieces.append(self._read(self.length - 2 * len(pieces) * self.asked, generator))
        return torch.cat([*pieces, *pieces[: len(pieces) - 1]])

    def _read(self, tokens: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        text = open_corpus(self.folder).train
        span = min(16 * tokens, len(text) - 1)  # bytes that surely hold as many tokens
        start = int(torch.randint(len(text) - span, (1,), generator=generator))
        piece = bytes(text[start : start + span])
        if self.model == TINY:
            return torch.tensor(list(piece[:tokens]))
        ids: list[int] = _tokenizer(self.model)(piece.decode(errors="ignore")).input_ids
        if len(ids) < tokens:
            raise PacelineError(f"{tokens} tokens of {self.model} cannot be read from {span} bytes: give more text.")
        return torch.tensor(ids[:tokens])

    def _text(self, ids: Tensor) -> str:
        return bytes(ids.tolist()).decode("latin1") if self.model == TINY else _tokenizer(self.model).decode(ids)

    def _bytes(self, ids: Tensor) -> int:
        return len(ids) if self.model == TINY else len(self._text(ids).encode())


class Pretrained(Contestant):
    """A pretrained model, changed and measured on the seed's own excerpts. Nothing is trained, so nothing is tuned.

    Args:
        name: for the tables.
        model: see `lm.pretrained`, or `TINY`.
        change: what is done to the model. Default: nothing.
    """

    settings = (0.0,)

    def __init__(self, name: str, model: str = "smollm2", change: Change | None = None) -> None:
        self.name, self.model, self.change = name, model, change

    def identity(self) -> list[object]:
        """See `Contestant.identity`."""
        known: list[object] = [self.model]
        return known if self.change is None else [*known, f"{self.change.__module__}.{self.change.__qualname__}"]

    def check(self, event: Event) -> None:
        """See `Contestant.check`."""
        if not isinstance(event.task, Excerpts) or event.task.model != self.model:
            raise PacelineError(f"{self.name} is measured on Excerpts in the tokens of {self.model} only.")

    @torch.no_grad()
    def run(self, job: Job, report: Report) -> Outcome:
        """See `Contestant.run`. To read the excerpts is what is billed: the method is applied where it is measured."""
        task = job.event.task
        assert isinstance(task, Excerpts)
        model = load(self.model)
        began = time.monotonic()
        torch.manual_seed(derive(job.seed, "change"))
        read: Meters = dict if self.change is None else self.change(model)
        data = task.batch(task.items, job.seed, 0)
        items: list[float] = []
        flops = 0
        for number, (ids, targets) in enumerate(zip(data.ids.split(1), data.targets.split(1), strict=True)):
            with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
                logits = model(ids, logits_to_keep=task.asked + 1, use_cache=False).logits
            flops += counter.get_total_flops()
            items += task.score(logits, targets).tolist()
            report(number + 1, len(data.ids), items[-1])
        parameters = sum(p.numel() for p in model.parameters())
        bill = Ledger(data.ids.numel(), float(flops), time.monotonic() - began, len(items), parameters)
        return Outcome(items, [], bill, read())


def load(name: str) -> Any:
    """A causal LM of transformers, in evaluation mode."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    if name != TINY:
        return AutoModelForCausalLM.from_pretrained(pretrained(name)).eval()
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=4_096,
        )
    ).eval()  # fmt: skip


@cache
def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pretrained(name))
