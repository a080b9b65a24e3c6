"""What every decoding strategy promises, on models of every kind: whatever lies in `decode/` is tested here."""

import pytest
import scipy.stats
import torch
from _lms import LMS, decoding_lm

from paceline.core.discovery import load, methods
from paceline.core.errors import PacelineError
from paceline.core.growing import Growing
from paceline.core.state import LM
from paceline.decode._contract import Strategy
from paceline.decode._generate import Past, generate
from paceline.decode.greedy import Greedy
from paceline.lm.table import Table

PROMPT = [3, 1, 4, 1, 5, 2, 6, 5, 3, 1, 4]
TOKENS = 20
DRAWS = 20_000


def strategies(method: str, lm: LM) -> list[Strategy]:
    """Those that work with the model; a method that cannot says why when it prepares, and that is no failure."""
    found = load("decode", method).example(lm)
    try:
        for strategy in found:
            strategy.prepare(lm)
    except PacelineError as reason:
        pytest.skip(str(reason))
    return found


class Chain(Table):
    """A Markov chain of two layers, each of which adds its part of the logits."""

    depth = 2

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__(logits)
        noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
        self.parts = (logits + noise, -noise)

    def embed(self, ids):
        return torch.cat((torch.eye(self.vocab_size)[ids], torch.zeros(*ids.shape, self.vocab_size)), dim=-1)

    def through(self, x, past, start, *, first=0):
        token, logits = x.chunk(2, dim=-1)
        for part in self.parts[first : first + len(past)]:
            logits = logits + token @ part
        return torch.cat((token, logits), dim=-1), tuple(past)

    def final(self, x):
        return x

    def head(self, x):
        return x.chunk(2, dim=-1)[1]

    def initial_state(self, batch):
        return Growing(({"last": torch.zeros(batch, 1)},) * 2, 0, of="table")


def table() -> Table:
    return Chain(2 * torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))


class Watched:
    """A model that counts how it is called; going on to the last layer from where one left early is a call too."""

    def __init__(self, lm: LM) -> None:
        self.lm, self.calls, self.read = lm, 0, 0
        self.vocab_size = lm.vocab_size

    def __getattr__(self, name: str) -> object:
        return self.late if name == "through" and hasattr(self.lm, name) else getattr(self.lm, name)

    def late(self, x, past, start, *, first=0):
        if first and first + len(past) == self.lm.depth:
            self.calls, self.read = self.calls + 1, self.read + x.shape[1]
        return self.lm.through(x, past, start, first=first)

    def __call__(self, ids, state, **more):
        self.calls, self.read = self.calls + 1, self.read + ids.numel()
        return self.lm(ids, state, **more)


@pytest.fixture(scope="module", params=LMS)
def lm(request: pytest.FixtureRequest) -> LM:
    return decoding_lm(request.param)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("method", methods("decode"))
def test_tokens_are_as_many_as_asked_valid_and_the_same_under_a_seed(method: str, lm: LM) -> None:
    for strategy in strategies(method, lm):
        first = generate(lm, PROMPT, strategy, TOKENS, seed=7)
        tokens = first.all()
        assert len(tokens) == TOKENS == first.counts.made and first.stopped == "length"
        assert all(0 <= token < lm.vocab_size for token in tokens)
        assert generate(lm, PROMPT, strategy, TOKENS, seed=7).all() == tokens


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("method", methods("decode"))
def test_greedy_forms_say_what_the_model_says(method: str, lm: LM) -> None:
    expected = generate(lm, PROMPT, Greedy(), TOKENS).all()
    forms = [s for s in strategies(method, lm) if s.lossless and getattr(s, "choice", None) and s.choice.greedy]
    limits = getattr(load("decode", method), "greedy_limit", lambda lm: [])(lm)
    assert forms or limits, f"{method} has neither a lossless greedy form nor a greedy limit"
    for strategy in (*forms, *limits):
        assert generate(lm, PROMPT, strategy, TOKENS).all() == expected


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("method", methods("decode"))
def test_lossless_draws_follow_the_model(method: str) -> None:
    """Each token given the two before it, over one long run, against the chain's own probabilities."""
    lm = table()
    chances = [s for s in strategies(method, lm) if s.lossless and getattr(s, "choice", None) and not s.choice.greedy]
    for strategy in chances:
        draws, choice = DRAWS // len(chances), strategy.choice
        tokens = torch.tensor(generate(lm, PROMPT[1:2], strategy, draws + 2, seed=5).all())
        seen = torch.zeros(5, 5, 5, dtype=torch.float64)
        seen.index_put_(
            (tokens[:-2], tokens[1:-1], tokens[2:]), torch.ones(draws, dtype=torch.float64), accumulate=True
        )
        expected = seen.sum(2, keepdim=True) * choice.probabilities(lm.table)
        assert seen[expected == 0].sum() == 0
        rows = ((expected >= 5) | (expected == 0)).all(2) & (seen.sum(2) > 0)  # the pairs that came often enough
        excess = ((seen - expected).square() / expected.clamp_min(1e-12) * (expected > 0)).sum(2)[rows].sum()
        freedom = ((expected > 0).sum(2) - 1)[rows].sum()
        assert freedom > 0 and scipy.stats.chi2.sf(excess, freedom) > 1e-4


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("method", methods("decode"))
def test_a_held_prefix_is_not_read_again(method: str, lm: LM) -> None:
    for strategy in strategies(method, lm):
        fresh = generate(lm, [*PROMPT, 2, 2], strategy, 5, seed=1)
        expected = fresh.all()
        past = Past()
        generate(lm, PROMPT, strategy, 1, past=past).all()
        again = generate(lm, [*PROMPT, 2, 2], strategy, 5, seed=1, past=past)
        assert again.all() == expected
        if past.state is not None and strategy.streams:
            assert again.counts.reused == len(PROMPT)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("method", methods("decode"))
def test_a_stop_token_is_the_last(method: str, lm: LM) -> None:
    for strategy in strategies(method, lm):
        tokens = generate(lm, PROMPT, strategy, TOKENS, seed=3).all()
        stop = tokens[4]
        stream = generate(lm, PROMPT, strategy, TOKENS, seed=3, stop=[stop])
        if strategy.streams:
            assert stream.all() == tokens[: tokens.index(stop) + 1] and stream.stopped == "stop"
        else:
            assert stop not in stream.all()[:-1]


@pytest.mark.parametrize("method", methods("decode"))
def test_calls_are_counted(method: str, lm: LM) -> None:
    """And here the shapes of all calls are checked."""
    for strategy in strategies(method, lm):
        watched = Watched(lm)
        stream = generate(watched, PROMPT, strategy, TOKENS)
        stream.all()
        assert (stream.counts.calls, stream.counts.read) == (watched.calls, watched.read)
