"""Contrastive search, against the formula read anew from the whole text at each step."""

import pytest
import torch
from _lms import decoding_lm

from paceline.core.errors import PacelineError
from paceline.decode._generate import Past, generate
from paceline.decode.contrastive import Contrastive, scores
from paceline.decode.greedy import Greedy
from paceline.lm.table import Table

PROMPT = [3, 1, 4, 1, 5]


def test_the_score_of_two_candidates_by_hand() -> None:
    text = [[1.0, 0.0], [0.0, 2.0]]
    hidden = torch.tensor([[*text, [3.0, 0.0]], [*text, [1.0, -1.0]]])  # likeness: 1, and 1 / sqrt 2
    expected = torch.tensor([0.4 * 0.7 - 0.6, 0.4 * 0.2 - 0.6 / 2**0.5], dtype=torch.float64)
    assert torch.allclose(scores(torch.tensor([0.7, 0.2], dtype=torch.float64), hidden, 0.6), expected)


@pytest.mark.parametrize("kind", ["attention", "hybrid"])
def test_each_token_is_the_best_of_the_formula(kind: str) -> None:
    lm, text = decoding_lm(kind), list(PROMPT)
    for _ in range(12):
        with torch.no_grad():
            p = lm.logits(torch.tensor([text]))[0, -1].softmax(-1)
            best, token = -2.0, -1
            for candidate in p.topk(4).indices.tolist():
                hidden = lm.hidden_states(torch.tensor([[*text, candidate]]))[0]
                likeness = torch.cosine_similarity(hidden[:-1], hidden[-1:]).max()
                score = float(0.4 * p[candidate] - 0.6 * likeness)
                best, token = max((best, token), (score, candidate))
        text.append(token)
    assert generate(lm, PROMPT, Contrastive(k=4, alpha=0.6), 12).all() == text[len(PROMPT) :]
    assert text[len(PROMPT) :] != generate(lm, PROMPT, Greedy(), 12).all()


def test_a_step_is_one_call_of_k_rows_and_prefixes_are_kept_with_their_hidden_states() -> None:
    lm, past = decoding_lm("lean llama"), Past()
    stream = generate(lm, PROMPT, Contrastive(k=3), 6, past=past)
    tokens = stream.all()
    assert (stream.counts.calls, stream.counts.read) == (1 + 6, len(PROMPT) + 6 * 3)
    longer = [*PROMPT, *tokens[:4]]
    again = generate(lm, longer, Contrastive(k=3), 2, past=past)
    assert again.all() == tokens[4:6] and again.counts.reused == len(longer) - 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(PacelineError, match="k must be at least 1"):
        Contrastive(k=0)
    with pytest.raises(PacelineError, match="Table shows none"):
        generate(Table(torch.zeros(9, 9)), PROMPT, Contrastive(), 2)
