"""Guides inside transformers' `generate`: the same tokens as Paceline's own decoding."""

import pytest
import torch
from _foreign import foreign
from _tiny import model

from paceline.core.errors import PacelineError
from paceline.decode._contract import Strategy
from paceline.decode._generate import generate
from paceline.decode.beam import Beam
from paceline.decode.genarm import GenARM
from paceline.decode.grammar import Grammar
from paceline.decode.greedy import Greedy
from paceline.decode.proxy_tuning import ProxyTuning
from paceline.lm.huggingface.processor import logits_processor

PROMPT = [3, 1, 4, 1, 5, 2]
TOKENS = [f"{token};".encode() for token in range(11)]
GUIDES = ["proxy_tuning", "genarm", "grammar"]


def strategy(name: str) -> Strategy:
    one, two = model("ema", seed=1).double(), model("hybrid", seed=2).double()
    if name == "grammar":
        return Grammar(regex="((2;|7;)+(9;|4;))+", tokenizer=TOKENS)
    return ProxyTuning(one, two, alpha=1.5) if name == "proxy_tuning" else GenARM([one, two], (1.0, 0.5), beta=0.5)


def theirs(lm, guided, **more: object) -> list[list[int]]:
    ids = torch.tensor([PROMPT, PROMPT[::-1]])
    out = lm.model.generate(
        ids, logits_processor=[logits_processor(guided)], do_sample=False, max_new_tokens=10, min_new_tokens=10,
        eos_token_id=None, pad_token_id=0, attention_mask=torch.ones_like(ids), **more,
    )  # fmt: skip
    return out[:, len(PROMPT) :].tolist()


@pytest.mark.parametrize("name", GUIDES)
def test_greedy_tokens_are_the_same(name: str) -> None:
    lm, how = foreign("llama"), strategy(name)
    mine = [generate(lm, prompt, how, 10).all() for prompt in (PROMPT, PROMPT[::-1])]
    assert theirs(lm, how.prepare(lm)) == mine
    assert mine[0] != generate(lm, PROMPT, Greedy(), 10).all()


@pytest.mark.parametrize("name", GUIDES)
def test_beams_keep_each_sequence_with_its_own_past(name: str) -> None:
    lm, how = foreign("llama"), strategy(name)
    guided = how.over(lm, len(PROMPT)) if isinstance(how, Grammar) else how.prepare(lm)
    mine = [generate(guided, prompt, Beam(width=3), 10).all() for prompt in (PROMPT, PROMPT[::-1])]
    assert theirs(lm, how.prepare(lm), num_beams=3, renormalize_logits=True) == mine


def test_two_guides_are_both_asked() -> None:
    lm = foreign("llama")
    proxied = strategy("proxy_tuning").prepare(lm)
    mine = generate(proxied, PROMPT, strategy("grammar"), 10).all()
    assert theirs(lm, strategy("grammar").prepare(proxied))[0] == mine


def test_what_is_not_guided_is_refused() -> None:
    with pytest.raises(PacelineError, match="HuggingFaceLM is not guided"):
        logits_processor(foreign("llama"))
