"""Beam search, against transformers' own and against every continuation there is."""

import itertools

import pytest
import torch
from _foreign import foreign
from _lms import decoding_lm, lean

from paceline.core.errors import PacelineError
from paceline.decode._generate import generate
from paceline.decode.beam import Beam
from paceline.decode.greedy import Greedy
from paceline.lm.huggingface.llama import Llama
from paceline.lm.table import Table

PROMPT = [3, 1, 4, 1, 5]


@pytest.mark.parametrize("stop", [[], [7], [2, 9]])
@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_finds_what_transformers_finds(stop: list[int], penalty: float, seed: int) -> None:
    original, prompt = foreign("llama").model, torch.randint(11, (6,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        original.lm_head.weight *= 8  # so that beams differ
        out = original.generate(
            prompt[None], num_beams=4, do_sample=False, max_new_tokens=12, length_penalty=penalty, use_cache=True,
            eos_token_id=stop or None, pad_token_id=0, num_return_sequences=4, output_scores=True,
            return_dict_in_generate=True, attention_mask=torch.ones(1, 6, dtype=torch.long),
        )  # fmt: skip
    search = Beam(width=4, length_penalty=penalty)
    found = generate(Llama(original), prompt, search, 12, stop=stop).all()
    lengths = [len(h.tokens) for h in search.hypotheses]
    theirs = [row[6 : 6 + n].tolist() for row, n in zip(out.sequences, lengths, strict=True)]
    assert found == theirs[0] and [list(h.tokens) for h in search.hypotheses] == theirs
    scores = torch.tensor([h.score for h in search.hypotheses])
    assert torch.allclose(scores, out.sequences_scores, atol=1e-4)


def test_a_wide_beam_finds_the_likeliest_of_all() -> None:
    lm = Table(2 * torch.randn(4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    says = lm.table.log_softmax(-1)

    def log_p(text: tuple[int, ...]) -> float:
        return sum(float(says[a, b]) for a, b in itertools.pairwise((0, *text)))

    texts = sorted(itertools.product(range(4), repeat=4), key=log_p, reverse=True)
    search = Beam(width=64)
    assert tuple(generate(lm, [0], search, 4).all()) == texts[0]
    assert [h.tokens for h in search.hypotheses[:5]] == texts[:5]
    assert search.hypotheses[0].log_probability == pytest.approx(log_p(texts[0]))
    assert log_p(tuple(generate(lm, [0], Greedy(), 4).all())) < log_p(texts[0])  # the seed is one where greedy errs


@pytest.mark.parametrize("kind", ["ema", "mamba", "lean qwen3"])
def test_rows_are_told_apart_by_every_kind_of_state(kind: str) -> None:
    """What was found has the probability that the model gives it when it reads it alone."""
    lm, search = decoding_lm(kind), Beam(width=5, length_penalty=0.0)
    generate(lm, PROMPT, search, 8).all()
    assert len({h.tokens for h in search.hypotheses}) == 5
    for found in search.hypotheses:
        with torch.no_grad():
            logits, _ = lm(torch.tensor([[*PROMPT, *found.tokens]]), lm.initial_state(1))
        says = logits[0, len(PROMPT) - 1 : -1].double().log_softmax(-1)
        alone = float(says.gather(1, torch.tensor(found.tokens)[:, None]).sum())
        assert found.log_probability == pytest.approx(alone, abs=1e-4)


def test_one_call_a_step_and_the_limit_of_the_model() -> None:
    lm = lean("llama")
    stream = generate(lm, PROMPT, Beam(width=3), 7)
    assert len(stream.all()) == 7 and stream.counts.calls == 7 and stream.counts.read == len(PROMPT) + 6 * 3
    assert generate(lm, [1] * 60, Beam(width=3), 7).all() == generate(lm, [1] * 60, Beam(width=3), 4).all()


def test_no_beam_is_refused() -> None:
    with pytest.raises(PacelineError, match="width must be at least 1"):
        Beam(width=0)
