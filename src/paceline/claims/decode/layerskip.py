"""LayerSkip in byte models of eight layers: does its recipe make the first layers a better draft, at no loss?

The same decoder is trained from scratch on the same batches with and without the recipe: layer dropout that grows with
depth and time up to 0.1, and losses at the exits in rotation, one a step, scaled by 0.2: of the size that the paper
uses when it pretrains. The fourth layer of eight is the exit, and a draft has two guesses. Tokens are drawn
at temperature 1, where speculation is lossless in distribution: greedily such small models soon repeat themselves,
which any draft guesses. The cost of a token is in passes over the weights, a guess an exit's share of one; reading the
prompt is on nobody's bill. The plain model may do as suits it best on the very prompts: draft at layer 2, at layer 4,
or not at all. In the sham the exits learn, with the same weights and dropout, the next bytes of another text.

Exit, guesses and thresholds were chosen after a pilot on another seed, without the sham. The exit at layer 4 was ahead
by 0.38 bits per byte, that at layer 2 by 0.67; the whole model was behind by 0.005. Drafts of two guesses, with pauses,
made 1.29 tokens a pass from layer 4 and 1.18 from layer 2, the plain model 1.11 at best.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims._guiding import shared
from paceline.claims._measured import Measured, trained_once
from paceline.core.ledger import Ledger
from paceline.core.seeds import derive
from paceline.core.tolerances import close
from paceline.data._corpus import default_corpus
from paceline.data.text import Text
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.decode.layerskip import LayerSkip
from paceline.lm.config import Config, build, fit
from paceline.lm.decoder import Decoder, count_parameters
from paceline.lm.early_exit import EarlyExit, attach, detach, dropout_rates, exit_weights, rising, rotational
from paceline.lm.layers import LayeredDecoder
from paceline.lm.train import Recipe, train
from paceline.race.contestant import Event, Job, Outcome, Report

CLAIM = (
    "At the same tokens and steps, LayerSkip's recipe lets the fourth of eight layers predict text better by more than "
    "0.2 bits per byte and costs the whole model at most 0.05; and self-speculation from there makes more tokens per "
    "pass over the weights, by more than 0.05, than a model trained without the recipe does in its best way."
)
SEEDS = range(10, 20)
"""In a first run, on 0 to 9, every model paused its drafts after refusals, which suits none that drafts at a profit,
and the plain one refuses the most: 0.120 tokens a pass behind. Now nobody pauses; fresh seeds, bars unchanged."""
NEVER = 1_000_000
"""Refused drafts before a pause."""
METHOD, PLAIN, SHAM = "layerskip", "plain", "layerskip, exits learn other texts"
LAYERS, EXIT, GUESSES, EARLIER = 8, 4, 2, 2
RATE, DROPOUT, SCALE = 5e-3, 0.1, 0.2
EARLY, FULL, SPECULATION = "early_exit", "full_model", "self_speculation"
TITLES = {EARLY: "Exit at layer 4", FULL: "All layers", SPECULATION: "Self-speculation"}


class Exits(Text):
    """Held-out text, read by the first layers or by all, or continued by self-speculation.

    Args:
        folder: as in `Text`.
        length: as in `Text`.
        asks: `early_exit`, `full_model` or `self_speculation`.
        prompts: how many a seed draws, to continue each by as many bytes as it has.
    """

    def __init__(self, folder: str | Path, length: int, asks: str, prompts: int) -> None:
        super().__init__(folder, length)
        self.asks, self.prompts = asks, prompts
        self.name, self.title = asks, TITLES[asks]  # type: ignore[misc]
        if asks == SPECULATION:
            self.metric, self.items = "tokens per pass", prompts  # type: ignore[misc]
            self.better = "higher"  # type: ignore[misc, assignment]
            self.floor = None  # type: ignore[assignment]

    def describe(self) -> str:
        """See `Task.describe`."""
        way = {EARLY: f"with {EXIT} layers", FULL: "with all", SPECULATION: f"continue {self.prompts} prompts"}
        return f"{super().describe()} Here: {way[self.asks]}."

    def drawn(self, seed: int) -> list[list[int]]:
        """A seed's prompts, of held-out bytes."""
        draws = torch.Generator().manual_seed(derive(seed, "prompts"))
        starts = torch.randint(len(self.corpus.heldout) - self.length, (self.prompts,), generator=draws)
        return self._windows(self.corpus.heldout, starts.numpy()).ids[:, : self.length // 2].tolist()  # type: ignore[no-any-return]


def astray(part: EarlyExit) -> None:
    """The sham: each exit but the last learns the next bytes of another text of the batch."""

    def loss() -> Tensor:
        if part._ids is not None:
            part._ids = part._ids.roll(1, dims=0)
        return EarlyExit.auxiliary_loss(part)

    part.auxiliary_loss = loss  # type: ignore[method-assign]


def trained(job: Job, how: str) -> tuple[Decoder, Config]:
    """A decoder, by the recipe or without it."""
    event = job.event
    config = fit(["attention"] * LAYERS, event.task.vocab_size, event.parameters)
    torch.manual_seed(derive(job.seed, "init"))
    model, recipe = build(config), Recipe(event.tokens, event.batch, lr=RATE)
    if how != PLAIN:
        every = rotational(LAYERS - 1)
        part = attach(model, recipe.steps(event.task.length), dropout=DROPOUT, scale=SCALE, curriculum=every)
        if how == SHAM:
            astray(part)
    train(model, event.task, recipe, job.seed)
    detach(model)
    return model, config


def measure(job: Job, how: str, report: Report) -> Outcome:
    """What the task asks, of a model that the three tasks share."""
    decoder = trained_once(shared(job, how), lambda: trained(job, how))
    with torch.no_grad():
        return asked(job, how, decoder)


def asked(job: Job, how: str, decoder: Decoder) -> Outcome:
    """What the task asks of the trained model."""
    task = job.event.task
    assert isinstance(task, Exits)
    lm, bill = LayeredDecoder(decoder), Ledger(tokens=job.event.tokens, parameters=count_parameters(decoder))
    if task.asks != SPECULATION:
        data, depth = task.evaluation(), EXIT if task.asks == EARLY else LAYERS
        hidden, _ = lm.through(lm.embed(data.ids), lm.initial_state(len(data.ids)).layers[:depth], 0)
        return Outcome(task.score(lm.head(hidden), data.targets).tolist(), [], bill)
    prompts = task.drawn(job.seed)
    ways = [speculated(lm, prompts, EXIT, job.seed)]
    if how == PLAIN:
        ways += [speculated(lm, prompts, EARLIER, job.seed), ([1.0] * len(prompts), 0.0)]
    items, accepted = max(ways, key=lambda way: sum(way[0]))
    same = [greedy_stays(lm, prompt, EXIT) for prompt in prompts[:2]]
    return Outcome(items, [], bill, {"accepted": accepted, "same_as_greedy": sum(same) / len(same)})


def greedy_stays(lm: LayeredDecoder, prompt: list[int], depth: int) -> bool:
    """Whether greedy self-speculation says what the whole model says, for as long as the prompt is."""
    drafting, plain = (generate(lm, prompt, how, len(prompt)).all() for how in (LayerSkip(depth, GUESSES), Greedy()))
    return drafting == plain


def speculated(lm: LayeredDecoder, prompts: list[list[int]], depth: int, seed: int) -> tuple[list[float], float]:
    """Tokens per pass over the weights after each prompt, and the share of guesses that were accepted."""
    rates, drafted, accepted = [], 0, 0
    for number, prompt in enumerate(prompts):
        strategy = LayerSkip(depth, GUESSES, temperature=1.0, patience=NEVER)
        stream = generate(lm, prompt, strategy, len(prompt), seed=derive(seed, "draws", number))
        stream.all()
        counts = stream.counts
        rates.append((counts.made - 1) / (counts.calls - 1 + counts.helper_calls * depth / LAYERS))
        drafted, accepted = drafted + counts.drafted, accepted + counts.accepted
    return rates, accepted / max(drafted, 1)


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    corpus, smoke = default_corpus(corpora), budget == "smoke"
    length, prompts = (16, 2) if smoke else (128, 8)
    tokens, parameters, batch = {
        "smoke": (1_024, 40_000, 2),
        "cpu": (163_840, 250_000, 16),
        "gpu": (196_608_000, 10_000_000, 64),
    }[budget]
    events = [Event(Exits(corpus, length, asks, prompts), tokens, parameters, batch) for asks in TITLES]
    return Design(
        contestants=[Measured(how, measure, how, Exits) for how in (METHOD, PLAIN, SHAM)],
        events=events,
        seeds=1 if smoke else SEEDS,
        bars=[
            Bar(EARLY, METHOD, PLAIN, by=0.2),
            Bar(FULL, METHOD, PLAIN, by=-0.05),
            Bar(SPECULATION, METHOD, PLAIN, by=0.05),
        ],
        shams=[Bar(EARLY, METHOD, SHAM), Bar(SPECULATION, METHOD, SHAM)],
        meter="accepted",
        limits="A quarter of a million parameters and 164,000 bytes of training: the paper's models have a billion and "
        "more, a pass over their weights costs what it weighs, and here speed is counted and not timed.",
    )


def faithful() -> bool:
    """Whether rates, weights and loss are the paper's formulas taken one by one, and greedy output stays the same."""
    layers, steps, at = 8, 96, 40
    share = math.exp(at * math.log(2) / (steps - 1)) - 1
    rates = [share * (math.exp(layer * math.log(2) / (layers - 1)) - 1) * DROPOUT for layer in range(layers)]
    same = _equal(dropout_rates(layers, DROPOUT, rising(at, steps)), rates)
    exits = rotational(3)(0, steps, 4)
    raw = [SCALE * sum(range(1, layer + 2)) for layer in range(3)] + [float(sum(range(1, 5)))]
    counted = [weight if on or layer == 3 else 0.0 for layer, (weight, on) in enumerate(zip(raw, exits, strict=True))]
    weights = [weight / sum(counted) for weight in counted]
    return (
        same
        and _equal(exit_weights(exits, SCALE), weights)
        and _loss_is_the_paper_s(weights)
        and greedy_stays(LayeredDecoder(_tiny().eval()), [3, 1, 4] * 8, 1)
    )


def _equal(actual: list[float], expected: list[float]) -> bool:
    found, known = (torch.tensor(values, dtype=torch.float64) for values in (actual, expected))
    return close(found, known, torch.float64)


def _tiny() -> Decoder:
    torch.manual_seed(0)
    return build(Config(11, 8, 16, ("attention(heads=2)",) * 4)).double()


def _loss_is_the_paper_s(weights: list[float]) -> bool:
    model, ids = _tiny(), torch.arange(24).view(2, 12).square() % 11
    attach(model, 96, dropout=0.0, scale=SCALE, curriculum=rotational(3))
    logits = model.train().logits(ids)
    hidden, loss = model._embed(ids), torch.zeros((), dtype=torch.float64)
    for layer, weight in zip(model.stack, weights, strict=True):
        hidden = layer(hidden)
        said = model._head(model.norm(hidden)).log_softmax(-1)[:, :-1]
        loss = loss - weight * said.gather(-1, ids[:, 1:, None]).mean()
    last = -logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None]).mean()
    auxiliary = model.auxiliary_loss()
    detach(model)
    assert auxiliary is not None
    return close((last + auxiliary).detach(), (loss / weights[-1]).detach(), torch.float64)
