"""What drafting saves with a perfect draft, and what a poor one may cost."""

import pytest
import torch
from _lms import decoding_lm

from paceline.core.errors import PacelineError
from paceline.decode._contract import Counts, Run
from paceline.decode._draft import Bigram, Follower
from paceline.decode._generate import Past, generate
from paceline.decode.greedy import Greedy
from paceline.decode.speculative import Speculative

PROMPT = [3, 1, 4, 1, 5, 2, 6, 5, 3, 1, 4]


@pytest.mark.parametrize("kind", ["attention", "hybrid", "lean llama", "mamba"])
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_a_perfect_draft_is_always_accepted(kind, temperature):
    lm = decoding_lm(kind)
    stream = generate(lm, PROMPT, Speculative(lm, guesses=4, temperature=temperature), 21, seed=2)
    stream.all()
    counts = stream.counts
    assert counts.accepted == counts.drafted == 16
    assert counts.calls == 1 + 4  # the prompt's, and one for five tokens each
    assert counts.helper_calls == 16  # each guess; the draft reads what it lacks with the next token
    assert counts.more == {"accepted_per_draft": 4.0}


def test_a_poor_draft_costs_few_calls_and_pauses_longer_each_time():
    lm = decoding_lm("lean llama")
    expected = generate(lm, PROMPT[:3], Greedy(), 60).all()

    class Wrong(Bigram):
        """Says anything but what comes."""

        def head(self, x):
            logits = super().head(x)
            for token in expected:
                logits[..., token] = -1e9
            return logits

    stream = generate(lm, PROMPT[:3], Speculative(Wrong(lm.vocab_size), guesses=4), 60)
    assert stream.all() == expected
    assert stream.counts.accepted == 0 and stream.counts.calls == 60
    assert stream.counts.drafted == 4 * (2 + 3)  # two refusals, then one after each pause of 4, 8 and 16 steps
    assert stream.counts.helper_calls == stream.counts.drafted


@pytest.mark.parametrize("kind", ["hybrid", "lean llama"])
def test_the_draft_reads_no_text_twice(kind):
    lm = decoding_lm(kind)
    strategy, past = Speculative(lm, guesses=2), Past()
    read = []
    original = strategy.follower.call
    strategy.follower.call = lambda ids, state: (read.append(ids.shape[1]), original(ids, state))[1]
    first = generate(lm, PROMPT, strategy, 7, past=past).all()
    before = sum(read)
    again = generate(lm, [*PROMPT, *first[:-1]], strategy, 4, past=past)
    again.all()
    if kind == "lean llama":
        assert sum(read) - before <= 8 and again.counts.reused >= len(PROMPT)
    assert again.all() == generate(lm, [*PROMPT, *first[:-1]], Greedy(), 4).all()


def test_a_draft_stops_where_its_own_context_ends():
    lm, draft = decoding_lm("attention"), decoding_lm("lean llama")  # the draft reads 64 tokens
    expected = generate(lm, PROMPT, Greedy(), 80).all()
    assert generate(lm, PROMPT, Speculative(draft, guesses=4, patience=100), 80).all() == expected


def test_a_follower_takes_back_exactly_what_was_refused():
    lm = decoding_lm("hybrid")
    follower = Follower(lm, 4)

    run = Run(lm, PROMPT, torch.Generator(), Counts(), 50)
    follower.follow(run)
    for token in (7, 8, 9):
        follower.read(run, [token])
    run.ids += [7, 2]
    expected = lm(torch.tensor([run.ids]), None)[0][0, -1]
    torch.testing.assert_close(follower.follow(run), expected)
    assert run.counts.helper_calls == 5 and run.counts.calls == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"guesses": 0}, "guesses must be at least 1"), ({"patience": 0}, "patience must be at least 1")],
)
def test_numbers_below_one_are_refused(arguments, says):
    with pytest.raises(PacelineError, match=says):
        Speculative(Bigram(5), **arguments)


def test_another_vocabulary_is_refused():
    with pytest.raises(PacelineError, match="the draft 5"):
        generate(decoding_lm("ema"), PROMPT, Speculative(Bigram(5)), 3)
