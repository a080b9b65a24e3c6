"""Proxy-tuning in byte models: does a small model's tuning carry over to a larger one that is only read?

A large and a small model, alike but for their width, are trained on the same real text, then tuned on the same text in
a house style: words set apart by underscores in place of spaces, or lines ended by semicolons. This is tuning as the
paper's tasks have it, for which a format must be learnt and knowledge be kept. The large model is measured on held-out
text in that style: as it is, moved by the small pair's difference at alpha = 1, and tuned itself, which is the upper
arm that tells how much of the gap is closed. Besides the small tuned model there is another rival that takes one call
less, the mean of the large and the small tuned model's log-probabilities. The sham takes the difference that the pair
shows at the same place of another text: the style's bytes are as much favoured, but not where they belong.

Styles and thresholds were chosen after one pilot on another seed, in which these two closed 0.69 and 0.62 of the gap,
both together 0.65, and a third, text without capitals, 0.31. Where tuning is mostly more training, on one domain of the
text that the models had been trained on, pilots closed 0.14 to 0.31 of it, or made the large model worse, and the mean
was at times ahead: the small model learns then what the large one knows, and alpha = 1 is too much.
"""

from pathlib import Path

import torch
from torch import Tensor

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._guiding import bill, byte_model, shared
from paceline.claims._measured import Measured, trained_once
from paceline.core.seeds import derive
from paceline.core.state import LM
from paceline.core.tolerances import close
from paceline.data._contract import Batch
from paceline.data._corpus import default_corpus
from paceline.data.text import Text
from paceline.decode._guided import Combination, GuidedLM
from paceline.decode.proxy_tuning import ProxyTuning
from paceline.lm.checkpoint import load_model
from paceline.lm.config import Config
from paceline.lm.decoder import Decoder
from paceline.lm.table import Table
from paceline.lm.train import Recipe, train
from paceline.race.contestant import Event, Job, Outcome, Report

CLAIM = (
    "On text in a style that only a small model was tuned to (underscores for spaces, semicolons for line ends), a "
    "large model moved by the difference of the small one tuned and untuned (alpha = 1) predicts better than the large "
    "model, than the small tuned one and than the mean of these two, and closes more than half of the gap in bits per "
    "byte to the large model tuned itself."
)
METHOD, LARGE, EXPERT, MEAN = "proxy_tuning", "large", "small, tuned", "mean of large and small, tuned"
TUNED, SHAM = "large, tuned", "proxy_tuning, difference from another text"
LAYERS, SMALLER = 2, 4
RATE, TUNING_RATE, TUNING = 5e-3, 1e-3, 12
"""Of pretraining and of tuning, which has one token for so many of pretraining."""
STYLES = {"underscores": (" ", "_"), "semicolons": ("\n", ";")}


class Styled(Text):
    """Text in which one byte stands for another.

    Args:
        folder: as in `Text`.
        style: one of `STYLES`.
        items: windows of held-out text.
    """

    def __init__(self, folder: str | Path, style: str, items: int) -> None:
        super().__init__(folder, 128)
        self.style, self.items = style, items
        self.name, self.title = style, style.capitalize()  # type: ignore[misc]

    def describe(self) -> str:
        """See `Task.describe`."""
        was, becomes = STYLES[self.style]
        return f"{super().describe()} Here {was!r} is written as {becomes!r}."

    def _windows(self, data: object, starts: object) -> Batch:
        plain = super()._windows(data, starts)  # type: ignore[arg-type]
        was, becomes = map(ord, STYLES[self.style])
        return Batch(*(ids.masked_fill(ids == was, becomes) for ids in (plain.ids, plain.targets)))


def untuned(job: Job, size: str) -> Decoder:
    """The `large` or `small` model, trained on plain text."""
    event, task = job.event, job.event.task
    assert isinstance(task, Styled)
    text, recipe = Text(task.folder, task.length), Recipe(event.tokens, event.batch, lr=RATE)
    parameters = event.parameters // (SMALLER if size == "small" else 1)
    return trained_once(shared(job, size), lambda: byte_model(job, text, LAYERS, parameters, recipe))


def tuned(job: Job, size: str) -> Decoder:
    """The same, tuned to the style."""
    event, task = job.event, job.event.task
    assert isinstance(task, Styled)

    def make() -> tuple[Decoder, Config]:
        untuned(job, size)
        model, config = load_model(shared(job, size))
        recipe = Recipe(max(event.tokens // TUNING, event.batch * task.length), event.batch, lr=TUNING_RATE)
        train(model.train(), task, recipe, derive(job.seed, "tuning"))
        return model, config

    return trained_once(shared(job, f"{size}, {task.style}"), make)


def contestant(job: Job, how: str) -> LM:
    """The language model that is measured."""
    if how == TUNED:
        return tuned(job, "large")
    if how == EXPERT:
        return tuned(job, "small")
    large = untuned(job, "large")
    if how == LARGE:
        return large
    expert, antiexpert = tuned(job, "small"), untuned(job, "small")
    if how == METHOD:
        return ProxyTuning(expert, antiexpert).prepare(large)
    if how == MEAN:
        return GuidedLM(large, Combination((expert,), lambda s: s[0].log_softmax(-1) / 2 + s[1].log_softmax(-1) / 2))
    return GuidedLM(large, Combination((expert, antiexpert), lambda s: s[0] + (s[1] - s[2]).roll(1, dims=0)))


def measure(job: Job, how: str, report: Report) -> Outcome:
    """Bits per byte of held-out text in the style, and the share of the gap that is closed."""
    task, large, upper = job.event.task, untuned(job, "large"), tuned(job, "large")
    data, lm = task.evaluation(), contestant(job, how)

    @torch.no_grad()
    def bits(lm: LM) -> Tensor:
        logits, _ = lm(data.ids, None)
        return task.score(logits, data.targets)

    items, start, end = (bits(each) for each in (lm, large, upper))
    closed = (start.mean() - items.mean()) / (start.mean() - end.mean())
    return Outcome(items.tolist(), [], bill(job, large), {"gap_closed": closed.item()})


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    corpus, smoke = default_corpus(corpora), budget == "smoke"
    styles = [*STYLES][:1] if smoke else [*STYLES]
    tokens, parameters, batch = {
        "smoke": (2_048, 40_000, 2),
        "cpu": (720_000, 150_000, 16),
        "gpu": (720_000_000, 10_000_000, 64),
    }[budget]
    bars = []
    for style in styles:
        bars += [Bar(style, METHOD, rival) for rival in (LARGE, EXPERT, MEAN)]
        bars.append(Bar(style, METHOD, LARGE, by=0.5, measure="meter:gap_closed"))
    return Design(
        contestants=[Measured(how, measure, how, Styled) for how in (METHOD, LARGE, EXPERT, MEAN, TUNED, SHAM)],
        events=[Event(Styled(corpus, style, 8 if smoke else 128), tokens, parameters, batch) for style in styles],
        seeds=1 if smoke else 10,
        bars=bars,
        shams=[Bar(style, METHOD, SHAM) for style in styles],
        meter="gap_closed",
        limits="Models of 0.15 and 0.04 million parameters and styles of one byte: the paper tunes 7 billion to "
        "instructions, code and tasks, and moves 70; tuning that teaches more than a form was not put to the test.",
    )


def faithful() -> bool:
    """Whether the moved model's probabilities are M (M+ / M-)^alpha, renormalised, taken one by one."""
    v = 7
    tables = [torch.sin(torch.arange(v * v, dtype=torch.float64) * (n + 2)).view(v, v) * 3 for n in range(3)]
    large, expert, antiexpert = (Table(table) for table in tables)
    same = []
    for alpha in (1.0, 0.4):
        said, _ = ProxyTuning(expert, antiexpert, alpha).prepare(large)(torch.arange(v).view(1, -1), None)
        p, plus, minus = (table.exp() / table.exp().sum(1, keepdim=True) for table in tables)
        product = p * (plus / minus) ** alpha
        same.append(close(said[0].softmax(-1), product / product.sum(1, keepdim=True), torch.float64))
    return all(same)
