"""What only exact byte probabilities promise: the sum over covers, validity, mid-token prompts, and refusals."""

import itertools
import math

import numpy as np
import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.tokens._toy import Chain, toy, vocabulary
from paceline.tokens._vocabulary import Vocabulary
from paceline.tokens.byte_ensemble import ByteEnsemble
from paceline.tokens.exact_bytes import FLOOR, ExactBytes
from paceline.tokens.token_healing import TokenHealing

VIEW = toy(0.0)
KNOWN = VIEW.vocabulary
WRITTEN = [*b"abc", *range(256, KNOWN.vocab_size - 1)]
PROSE = "The cat's 42 friends didn't\n\n  run  away: \t`x = [1, 23]`\n\n\ndef f(a):\n    return a\n\n"


def normalised(before: int, last: int) -> torch.Tensor:
    """The chain's next-token probabilities among what the tokenizer writes after `last`."""
    valid = torch.zeros(KNOWN.vocab_size, dtype=torch.float64)
    beginning = last == VIEW.start
    for token, piece in enumerate(KNOWN.pieces):
        if piece is None or beginning or KNOWN.encode(KNOWN.pieces[last] + piece) == [last, token]:
            valid[token] = 1
    p = VIEW.lm.table[last].softmax(0) * valid
    return p / p.sum()


NEXT = {last: normalised(-1, last) for last in [*WRITTEN, VIEW.start]}


def covers(rest: bytes, last: int) -> float:
    """The sum over all covers, one after the other."""
    found = 0.0
    for token in WRITTEN:
        piece = KNOWN.pieces[token]
        if piece.startswith(rest):
            found += float(NEXT[last][token])
        elif rest.startswith(piece):
            found += float(NEXT[last][token]) * covers(rest[len(piece) :], token)
    return found


@pytest.mark.parametrize("text", [b"a", b"ab", b"abac", b"cabba", b"bbbaabca"])
def test_the_chain_rule_gives_the_sum_over_all_covers(text: bytes) -> None:
    logits, _ = VIEW(torch.tensor([list(text)]))
    found = float(VIEW.first()[text[0]]) + sum(float(logits[0, i, byte]) for i, byte in enumerate(text[1:]))
    assert math.isclose(math.exp(found), covers(text, VIEW.start), rel_tol=1e-9)


def test_two_tokens_may_follow_where_the_tokenizer_writes_them() -> None:
    for last, token in itertools.product(WRITTEN, repeat=2):
        pieces = KNOWN.pieces[last] + KNOWN.pieces[token]
        assert bool(KNOWN.pairs.follow(last)[token]) == (KNOWN.encode(pieces) == [last, token])


def test_a_prompt_read_at_once_is_one_read_byte_by_byte() -> None:
    for text in (b"abacabbaab", b"ccccab", b"a", b""):
        logits, state = VIEW.prompt(text)
        expected = VIEW(torch.tensor([list(text)]))[0][0, -1] if text else VIEW.first()
        assert torch.allclose(logits, expected, atol=1e-12)
        assert state.length == len(text)


def test_leaving_out_rare_tokens_saves_calls_and_still_sums_to_one() -> None:
    ids = torch.tensor([list(b"abacabbaabcacbab")])
    exact, all_ = VIEW(ids)
    near, fewer = toy(0.05)(ids)
    assert fewer.calls < all_.calls
    assert not torch.equal(near, exact)
    assert torch.allclose(near.exp().sum(-1), torch.ones(1, 16, dtype=torch.float64), atol=1e-9)


def test_a_text_that_only_left_out_tokens_write_is_covered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    lossy, lost, look = toy(0.9), list[bytes](), ExactBytes._lost
    monkeypatch.setattr(ExactBytes, "_lost", lambda self, text, calls: lost.append(text) or look(self, text, calls))
    for text in itertools.product(b"abc", repeat=4):
        said = lossy(torch.tensor([list(text)]))[0][0, -1]
        if lost and lost[-1] == bytes(text):
            assert torch.allclose(said, VIEW(torch.tensor([list(text)]))[0][0, -1], atol=1e-9)
    assert len(lost) > 10


def test_plain_continuation_is_blind_and_healing_is_not_to_what_the_last_token_may_become() -> None:
    view = TokenHealing(VIEW.lm, KNOWN, VIEW.start, VIEW.ends, 0.0)
    exact, plain, healed = VIEW.prompt(b"ca")[0], view.backed(b"ca", 0)[0], view.prompt(b"ca")[0]
    assert float(plain[98]) < -20 < float(healed[98])  # c a b is never written
    assert torch.isfinite(exact).all()


def test_an_ensemble_is_the_mean_of_the_probabilities() -> None:
    members = [toy(), toy(merges=(b"a b",))]
    logits, _ = ByteEnsemble(members, [3, 1]).prompt(b"abca")
    expected = 0.75 * members[0].prompt(b"abca")[0].exp() + 0.25 * members[1].prompt(b"abca")[0].exp()
    assert torch.allclose(logits.exp(), expected, atol=1e-9)
    with pytest.raises(PacelineError, match="give one each"):
        ByteEnsemble(members, [1.0])


def byte_level():
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<end>"], initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    model.train_from_iterator([PROSE] * 3, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<end>")


def test_what_a_real_tokenizer_writes_is_allowed_and_little_else() -> None:
    tokenizer = byte_level()
    known = Vocabulary.of(tokenizer)
    ids = known.encode(PROSE.encode())
    assert ids == tokenizer(PROSE).input_ids and known.decode(ids) == PROSE.encode()
    place = {int(token): at for at, token in enumerate(known.order)}
    for before, last, token in zip([-1, *ids], ids, ids[1:], strict=False):
        assert known.allowed(before, last)[place[token]]
    words = [token for token, piece in enumerate(known.pieces) if piece and piece.strip().isalpha() and piece.isascii()]
    for last, token in itertools.product(words[:60], repeat=2):
        text = known.pieces[last] + known.pieces[token]
        allowed = bool(known.allowed(-1, last)[place[token]])
        assert allowed == (known.encode(text) == [last, token]), text


def test_prompts_of_a_real_tokenizer_are_covered_wherever_they_are_cut() -> None:
    """Also between two line ends, which are one token where nothing follows."""
    tokenizer = byte_level()
    table = torch.randn(len(tokenizer), len(tokenizer), generator=torch.Generator().manual_seed(0)).double()
    view, text = ExactBytes(Chain(table), tokenizer), (PROSE + "run\n\nstr").encode()
    said = view(torch.tensor([list(text)]))[0][0]
    assert torch.stack([line[byte] for line, byte in zip(said, text[1:], strict=False)]).min() > math.log(2 * FLOOR)
    for cut in range(1, len(text)):
        assert torch.allclose(view.prompt(text[:cut])[0], said[cut - 1], atol=1e-9), text[:cut]


def test_the_sorted_tokens_fall_into_ranges_by_their_next_byte() -> None:
    places = KNOWN.children(0, len(KNOWN.order), 0)
    for byte in b"abc":
        inside = KNOWN.sorted[places[1 + byte] : places[2 + byte]]
        assert inside == [piece for piece in KNOWN.sorted if piece[0] == byte]
    assert np.all(np.diff(places) >= 0)


def test_what_cannot_be_seen_as_bytes_is_refused() -> None:
    tokenizers = pytest.importorskip("tokenizers")

    class Fast:
        backend_tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))

    with pytest.raises(PacelineError, match="WordLevel"):
        Vocabulary.of(Fast())
    with pytest.raises(PacelineError, match="fast tokenizer"):
        Vocabulary.of(object())
    with pytest.raises(PacelineError, match="give it"):
        ExactBytes(VIEW.lm)
    with pytest.raises(PacelineError, match="give the model's own"):
        ExactBytes(VIEW.lm, Vocabulary([*KNOWN.pieces, b"zzz"], []), 0, ())
    with pytest.raises(PacelineError, match="start"):
        ExactBytes(VIEW.lm, vocabulary(), ends=())
    with pytest.raises(PacelineError, match="least"):
        ExactBytes(VIEW.lm, vocabulary(), 0, (), 2.0)
    with pytest.raises(PacelineError, match="is no byte"):
        VIEW(torch.tensor([[97, 256]]))


def test_generation_reads_a_prompt_as_a_whole_and_goes_on_as_byte_by_byte() -> None:
    prompt = b"a b a"
    stream = generate(VIEW, list(prompt), Greedy(), 6)
    made = stream.all()
    logits, state = VIEW(torch.tensor([list(prompt)]), None)
    expected = []
    for _ in range(6):
        expected.append(int(logits[0, -1].argmax()))
        logits, state = VIEW(torch.tensor([[expected[-1]]]), state)
    assert made == expected and stream.counts.calls == 6  # the prompt, and a step for each but the last
