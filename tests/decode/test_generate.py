"""Facts about sampling: greedy is argmax, draws follow the softmax, and nothing but a sentence comes of bad input."""

import math
from itertools import pairwise

import pytest
import torch
from _tiny import PLANS, VOCABULARY, model
from scipy import stats
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.state import State
from paceline.decode._contract import PIECE
from paceline.decode._generate import Stream
from paceline.decode._generate import generate as decode
from paceline.decode.greedy import Greedy
from paceline.decode.sample import Sample

PROMPT = torch.tensor([3, 1, 4, 1, 5])


def generate(lm, prompt, tokens: int, temperature: float = 1.0, seed: int = 0) -> Stream:
    return decode(lm, prompt, Greedy() if temperature == 0 else Sample(temperature), tokens, seed=seed)


class Table:
    """A language model whose next token depends on the last alone; remembers what it was fed."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.vocab_size, self.fed = logits, logits.shape[1], []

    def initial_state(self, batch):
        return State((), 0)

    def __call__(self, ids, state):
        self.fed.append((ids.tolist(), state.length))
        return self.logits[ids], State((), state.length + ids.shape[1])


def table(tokens: int = 5) -> Table:
    return Table(2 * torch.randn(tokens, tokens, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("plan", PLANS)
def test_temperature_0_is_argmax_decoding_from_scratch(plan):
    lm, text = model(plan).double(), PROMPT.tolist()
    with torch.no_grad():
        for _ in range(20):
            text.append(int(lm.logits(torch.tensor([text]))[0, -1].argmax()))
    assert list(generate(lm, PROMPT, 20, temperature=0)) == text[5:]


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 5e-324])
def test_a_temperature_near_0_is_greedy(temperature):
    lm = model("ema")
    greedy = list(generate(lm, PROMPT, 9, temperature=0))
    assert list(generate(lm, PROMPT, 9, temperature=temperature, seed=4)) == greedy


def test_the_seed_decides_the_draws_and_the_global_generator_does_not():
    lm = model("hybrid")

    def draw(seed):
        torch.rand(1)
        return list(generate(lm, PROMPT, 12, seed=seed))

    assert draw(7) == draw(7)
    assert len({tuple(draw(seed)) for seed in range(5)}) == 5


def test_sampling_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    list(generate(table(), PROMPT[:1], 5))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_follow_the_softmax_of_the_logits_over_the_temperature(temperature):
    lm = table()
    text = [0, *generate(lm, torch.tensor([0]), 6000, temperature=temperature, seed=11)]
    counts = torch.zeros(5, 5)
    for last, following in pairwise(text):
        counts[last, following] += 1
    expected = (lm.logits / temperature).softmax(-1) * counts.sum(1, keepdim=True)
    usual = expected > 5
    assert usual.sum() > 12
    statistic = ((counts - expected).square() / expected)[usual].sum().item()
    assert stats.chi2.sf(statistic, int(usual.sum()) - 5) > 1e-3
    assert counts[~usual].sum() < 3 * expected[~usual].sum() + 10


def test_draws_follow_the_softmax_of_a_decoder():
    lm, draws = model("ema"), 800
    with torch.no_grad():
        expected = draws * (lm.logits(PROMPT.unsqueeze(0))[0, -1].double() / 1.5).softmax(-1)
    counts = torch.zeros(VOCABULARY)
    for seed in range(draws):
        counts[next(generate(lm, PROMPT, 1, temperature=1.5, seed=seed))] += 1
    assert expected.min() > 3
    assert stats.chisquare(counts.double(), expected).pvalue > 1e-3


def test_the_prompt_is_read_once_and_every_token_but_the_last_after_it():
    lm = table(6)
    tokens = list(generate(lm, PROMPT, 4, seed=2))
    assert lm.fed == [([PROMPT.tolist()], 0), *[([[token]], 5 + i) for i, token in enumerate(tokens[:3])]]


def test_a_long_prompt_is_read_in_pieces():
    lm, prompt = table(6), torch.arange(2 * PIECE + 1) % 6
    list(generate(lm, prompt, 1))
    assert [(len(ids[0]), past) for ids, past in lm.fed] == [(PIECE, 0), (PIECE, PIECE), (1, 2 * PIECE)]
    assert torch.tensor([i for ids, _ in lm.fed for i in ids[0]]).equal(prompt)


@pytest.mark.parametrize("message", ["DefaultCPUAllocator: can't allocate memory", "out of memory"])
def test_more_memory_than_there_is_is_refused_and_other_faults_are_not_hidden(message, monkeypatch):
    def fail(ids, state):
        raise RuntimeError(message)

    lm = table()
    monkeypatch.setattr(Table, "__call__", lambda self, ids, state: fail(ids, state))
    with pytest.raises(PacelineError, match="more memory than there is"):
        list(generate(lm, PROMPT[:1], 3))
    message = "a fault of ours"
    with pytest.raises(RuntimeError, match="ours"):
        list(generate(lm, PROMPT[:1], 3))


def test_no_tokens_are_refused():
    with pytest.raises(PacelineError, match="At least one token must be generated, not 0"):
        generate(table(6), PROMPT, 0)


@pytest.mark.parametrize("temperature", [-1.0, -1e-9, math.nan])
def test_a_temperature_below_0_is_refused(temperature):
    with pytest.raises(PacelineError, match="temperature must be 0 or above"):
        list(generate(table(), PROMPT[:1], 3, temperature=temperature))


def test_an_empty_prompt_is_refused():
    with pytest.raises(PacelineError, match="prompt is empty"):
        list(generate(table(), PROMPT[:0], 3))


@pytest.mark.parametrize("token", [-1, 5, 255])
def test_a_prompt_outside_the_vocabulary_is_refused(token):
    with pytest.raises(PacelineError, match="vocabulary of 5"):
        list(generate(table(), torch.tensor([0, token]), 3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(value, temperature):
    lm = table()
    lm.logits[2, 1] = value
    with pytest.raises(PacelineError, match="not finite"):
        list(generate(lm, torch.tensor([2]), 3, temperature=temperature))


def test_damaged_weights_are_refused():
    lm = model("ema")
    lm.embedding.weight.data[0, 0] = math.nan
    with pytest.raises(PacelineError, match="damaged or it diverged"):
        list(generate(lm, PROMPT, 3))
