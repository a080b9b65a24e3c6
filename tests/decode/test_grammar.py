"""Grammars: only what they allow, whoever decodes, and refusals."""

import json
import re

import pytest
import torch
from _lms import lean
from _tiny import model

from paceline.core.errors import PacelineError
from paceline.core.state import LM
from paceline.decode._generate import Past, generate, generate_batch
from paceline.decode.beam import Beam
from paceline.decode.diverse_beam import DiverseBeam
from paceline.decode.grammar import Grammar
from paceline.decode.greedy import Greedy
from paceline.decode.lookup import Lookup
from paceline.decode.proxy_tuning import ProxyTuning

TOKENS = [b"a", b"b", b"ab", b"c", b"1", b"2", b"-", b"{", b"}", b"x", b"</s>"]
END = 10
PROMPT = [9, 3, 9, 3, 1]


def text(tokens: list[int]) -> str:
    return b"".join(TOKENS[token] for token in tokens if token != END).decode()


@pytest.fixture(scope="module", params=["hybrid", "lean"])
def lm(request: pytest.FixtureRequest) -> LM:
    return lean("llama") if request.param == "lean" else model("hybrid").double()


@pytest.mark.parametrize("regex", [r"(ab|c)+-[12]{2}", r"x{3}\{(1|2){1,3}\}", "a+b?c"])
def test_draws_match_and_end_by_the_stop_token(lm: LM, regex: str) -> None:
    found = set()
    for seed in range(8):
        strategy = Grammar(regex=regex, tokenizer=TOKENS, end=END, temperature=1.5)
        stream = generate(lm, PROMPT, strategy, 40, stop=[END], seed=seed)
        tokens = stream.all()
        assert stream.stopped == "stop" and re.fullmatch(regex, text(tokens))
        found.add(text(tokens))
    assert len(found) > 1


def test_each_token_is_the_likeliest_that_the_grammar_allows(lm: LM) -> None:
    made = generate(lm, PROMPT, Grammar(regex="[ab]{6}", tokenizer=TOKENS, end=END), 7, stop=[END]).all()
    ids = list(PROMPT)
    for token in made[:-1]:
        with torch.no_grad():
            logits, _ = lm(torch.tensor([ids]), lm.initial_state(1))
        left = 6 - len(text(ids[len(PROMPT) :]))
        allowed = [0, 1, 2] if left >= 2 else [0, 1]
        assert token == max(allowed, key=lambda t: float(logits[0, -1, t]))
        ids.append(token)
    assert made[-1] == END and len(text(made)) == 6


def test_after_its_end_there_is_nothing_but_the_end(lm: LM) -> None:
    made = generate(lm, PROMPT, Grammar(regex="ab", tokenizer=TOKENS, end=END), 6).all()
    assert text(made) == "ab" and made[-3:] == [END] * 3


def test_without_a_token_that_ends_it_generating_ends(lm: LM) -> None:
    stream = generate(lm, PROMPT, Grammar(regex="[12]{3}x", tokenizer=TOKENS), 20)
    assert re.fullmatch("[12]{3}x", text(stream.all())) and stream.stopped == "end" and stream.counts.made == 4


@pytest.mark.parametrize("regex", ["(a|b|c){12}", "((ab)+c)+", "[12]{8}"])
def test_drafts_and_beams_work_over_it(lm: LM, regex: str) -> None:
    grammar = Grammar(regex=regex, tokenizer=TOKENS, end=END)
    guided = grammar.over(lm, len(PROMPT))
    expected = generate(lm, PROMPT, grammar, 15, stop=[END]).all()
    assert generate(guided, PROMPT, Greedy(), 15, stop=[END]).all() == expected
    stream = generate(guided, PROMPT, Lookup(guesses=4), 15, stop=[END])
    assert stream.all() == expected and stream.counts.drafted > 0
    for search in (Beam(width=4), DiverseBeam(width=4, groups=2, diversity=2.0)):
        generate(guided, PROMPT, search, 15, stop=[END]).all()
        for found in search.hypotheses:
            whole = found.tokens[-1] == END
            assert not whole or re.fullmatch(regex, text(list(found.tokens)))
            assert whole or len(found.tokens) == 15
        assert len({found.tokens for found in search.hypotheses}) > 1


def test_a_draft_that_breaks_the_grammar_is_refused_and_taken_back(lm: LM) -> None:
    guided = Grammar(regex="[12]{9}", tokenizer=TOKENS, end=END).over(lm, 2)
    state = guided.initial_state(1).keeping(5)
    logits, state = guided(torch.tensor([[9, 9, 4, 3, 3]]), state)  # 9 9 | 1 c c
    allowed = [set(torch.nonzero(row.isfinite()).flatten().tolist()) for row in logits[0]]
    assert allowed[1] == allowed[2] == {4, 5} and len(allowed[0]) == len(allowed[4]) == 11
    logits, state = guided(torch.tensor([[5, 5]]), state.rewind(2))
    assert set(torch.nonzero(logits[0, -1].isfinite()).flatten().tolist()) == {4, 5} and state.length == 5
    rows = state.select(torch.tensor([0, 0])).fork()
    logits, _ = guided(torch.tensor([[5] * 6, [4] * 6]), rows)
    assert [torch.nonzero(row.isfinite()).flatten().tolist() for row in logits[:, -1]] == [[END], [END]]


def test_it_composes_with_other_guides_and_is_read_once(lm: LM) -> None:
    helper = model("ema", seed=3).double()
    proxied = ProxyTuning(helper, model("ema", seed=4).double(), alpha=2.0).prepare(lm)
    grammar, past = Grammar(regex="[abc]{9}", tokenizer=TOKENS, end=END), Past()
    made = generate(proxied, PROMPT, grammar, 12, stop=[END], past=past).all()
    assert re.fullmatch("[abc]{9}", text(made))
    longer = [*PROMPT, *made[:3]]
    again = generate(proxied, longer, grammar, 12, stop=[END], past=past)
    assert re.fullmatch("[abc]{9}", text(again.all())) and again.counts.reused == 0
    batch, _ = generate_batch(proxied, [PROMPT, PROMPT[:2]], grammar, 12, stop=[END])
    assert batch[0] == made and re.fullmatch("[abc]{9}", text(batch[1]))


def test_bytes_follow_a_schema_and_a_lark_grammar() -> None:
    lm = model("ema", vocabulary=256).double()
    schema = {
        "type": "object", "properties": {"n": {"enum": [1, 22]}, "s": {"type": "string", "maxLength": 3}},
        "required": ["n", "s"], "additionalProperties": False,
    }  # fmt: skip
    for given in (schema, json.dumps(schema)):
        stream = generate(lm, b"x", Grammar(json_schema=given, temperature=1.0), 300, seed=2)
        read = json.loads(bytes(stream.all()).decode())
        assert stream.stopped == "end" and read["n"] in (1, 22) and len(read["s"]) <= 3
    nested = Grammar(lark='start: "(" start ")" | "é"', temperature=3.0)
    for seed in range(5):
        made = bytes(generate(lm, b"x", nested, 99, seed=seed).all()).decode()
        assert re.fullmatch(r"\(*é\)*", made) and made.count("(") == made.count(")")


def test_a_tokenizer_of_transformers(tmp_path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "c": 2, "ab": 3, "</s>": 4}, merges=[("a", "b")]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    lm = model("ema").double()  # 11 tokens, more than the tokenizer has
    stream = generate(lm, PROMPT, Grammar(regex="(ab|c){4}", tokenizer=tokenizer, temperature=1.0), 20, stop=[4])
    tokens = stream.all()
    assert stream.stopped == "stop" and re.fullmatch("(ab|c){4}", tokenizer.decode(tokens[:-1]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of regex, json_schema and lark"),
        ({"regex": "a", "lark": 'start: "a"'}, "give one of"),
        ({"regex": "[ab"}, "the regular expression cannot be used"),
        ({"lark": "start: b"}, "the Lark grammar cannot be used"),
        ({"json_schema": "{"}, "the JSON schema is not JSON"),
        ({"json_schema": {"type": "foo"}}, r"the JSON schema cannot be used \(Invalid type: foo\)"),
        ({"json_schema": {"type": "integer", "minimum": 3, "maximum": 2}}, "minimum .3. is greater than maximum .2."),
    ],
)
def test_a_malformed_grammar_is_refused_at_once(given: dict, message: str) -> None:
    with pytest.raises(PacelineError, match=message) as refusal:
        Grammar(**given)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("regex", ["q+", r"[^\s\S]"])
def test_what_these_tokens_cannot_say_is_refused_before_reading(lm: LM, regex: str) -> None:
    with pytest.raises(PacelineError, match="no token of this vocabulary can go on"):
        generate(lm, PROMPT, Grammar(regex=regex, tokenizer=TOKENS, end=END))


def test_other_tokenizers_are_refused(lm: LM) -> None:
    with pytest.raises(PacelineError, match="11 tokens, which are not bytes: give its tokenizer"):
        generate(lm, PROMPT, Grammar(regex="a"))
    with pytest.raises(PacelineError, match="11 tokens and the tokenizer 3"):
        generate(lm, PROMPT, Grammar(regex="a", tokenizer=TOKENS[:3]))
