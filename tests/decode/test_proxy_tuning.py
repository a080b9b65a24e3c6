"""Proxy-tuning, against the formula by hand, and in the company of other methods."""

import pytest
import torch
from _lms import lean
from _tiny import model

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.decode._generate import generate, generate_batch
from paceline.decode.beam import Beam
from paceline.decode.greedy import Greedy
from paceline.decode.lookup import Lookup
from paceline.decode.proxy_tuning import ProxyTuning
from paceline.decode.sample import Sample
from paceline.lm.table import Table

PROMPT = [3, 1, 4, 1, 5, 2, 6, 5, 3, 1, 4]


def chain(seed: int, vocabulary: int = 11) -> Table:
    draws = torch.Generator().manual_seed(seed)
    return Table(3 * torch.randn(vocabulary, vocabulary, generator=draws, dtype=torch.float64))


def proxied() -> tuple[ProxyTuning, Table, Table]:
    expert, antiexpert = chain(1), chain(2)
    return ProxyTuning(expert, antiexpert, alpha=0.7), expert, antiexpert


def test_logits_are_moved_by_the_difference_whatever_the_pieces() -> None:
    strategy, expert, antiexpert = proxied()
    base = model("hybrid").double()
    guided = strategy.prepare(base)
    ids = torch.tensor([PROMPT, PROMPT[::-1]])
    with torch.no_grad():
        expected = base(ids)[0] + 0.7 * (expert.table[ids] - antiexpert.table[ids])
        whole, state = guided(ids, None)
        one, half = guided(ids[:, :4], None)
        two, _ = guided(ids[:, 4:], half)
        back, _ = guided(ids[:, 4:], guided(ids[:, 4:9], half.keeping(5))[1].rewind(5))
        turned, _ = guided(ids[[1, 1], 4:], half.select(torch.tensor([1, 1])))
    assert close(whole, expected, torch.float64) and state.length == len(PROMPT)
    for pieces in (two, back):
        assert close(torch.cat((one, pieces), 1), expected, torch.float64)
    assert close(turned, expected[[1, 1], 4:], torch.float64)


def test_the_moved_model_says_something_else_than_the_model() -> None:
    strategy, *_ = proxied()
    base = model("hybrid").double()
    assert generate(base, PROMPT, strategy, 20).all() != generate(base, PROMPT, Greedy(), 20).all()


@pytest.mark.parametrize("kind", ["hybrid", "lean"])
def test_it_composes_with_speculation_and_beams(kind: str) -> None:
    strategy, *_ = proxied()
    base = lean("llama") if kind == "lean" else model("hybrid").double()
    guided = strategy.prepare(base)
    expected = generate(guided, PROMPT, Greedy(), 30).all()
    stream = generate(guided, PROMPT, Lookup(guesses=3), 30)
    assert stream.all() == expected == generate(base, PROMPT, strategy, 30).all()
    assert stream.counts.drafted > 0 and stream.counts.helper_calls == 2 * stream.counts.calls
    assert generate(guided, PROMPT, Beam(width=1), 30).all() == expected


def test_any_choice_applies_to_the_moved_logits() -> None:
    strategy, expert, antiexpert = proxied()
    drawn = ProxyTuning(expert, antiexpert, 0.7, temperature=0.8, top_k=4, top_p=0.9, min_p=0.05, typical=0.9)
    base = chain(0)
    expected = generate(strategy.prepare(base), PROMPT, Sample(0.8, 4, 0.9, 0.05, 0.9), 30, seed=4).all()
    assert generate(base, PROMPT, drawn, 30, seed=4).all() == expected


def test_several_prompts_get_the_tokens_they_get_alone() -> None:
    strategy, *_ = proxied()
    base = lean("llama")
    made, _ = generate_batch(base, [PROMPT, PROMPT[:5]], strategy, 6)
    assert made == [generate(base, prompt, strategy, 6).all() for prompt in (PROMPT, PROMPT[:5])]


def test_another_vocabulary_is_refused_with_both_named() -> None:
    with pytest.raises(PacelineError, match=r"11 tokens and the antiexpert 5"):
        ProxyTuning(chain(1), chain(2, 5)).prepare(chain(0))
