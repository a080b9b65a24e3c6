"""DoLa: the contrast by hand, and on a model of transformers as its authors compute it."""

import math

import pytest
import torch
from _foreign import foreign
from _lms import decoding_lm

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.decode._generate import generate
from paceline.decode.dola import DoLa, contrasted
from paceline.decode.greedy import Greedy
from paceline.decode.lookup import Lookup

IDS = torch.tensor([[3, 1, 4, 1, 5, 2, 6]])


def test_the_contrast_by_hand() -> None:
    last = torch.tensor([0.6, 0.3, 0.06, 0.04], dtype=torch.float64)
    near = torch.tensor([0.5, 0.4, 0.05, 0.05], dtype=torch.float64)
    far = torch.tensor([0.9, 0.05, 0.025, 0.025], dtype=torch.float64)
    early = torch.stack((near, far)).log()[:, None, None] + 2
    given = contrasted(last.log()[None, None] - 1, early, alpha=0.1)[0, 0]
    assert close(given[:3], (last / far).log()[:3], torch.float64) and given[3] == -math.inf  # 0.04 < 0.1 * 0.6
    assert given.argmax() == 1  # not the likeliest


def test_the_layer_is_chosen_for_each_token() -> None:
    p, q = torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([0.1, 0.9], dtype=torch.float64)
    last, early = (
        torch.stack((p, q)).log()[None],
        torch.stack((torch.stack((p, p)), torch.stack((q, q)))).log()[:, None],
    )
    given = contrasted(last, early, alpha=0.01)[0]
    assert close(given, torch.stack(((p / q).log(), (q / p).log())), torch.float64)


def test_layers_are_those_of_the_authors() -> None:
    """Even ones of a half; the head on the stream before them, with no norm between."""
    lm = foreign("llama")
    model = lm.model
    with torch.no_grad():
        out = model(input_ids=IDS, output_hidden_states=True)
        early = model.lm_head(out.hidden_states[0])
        expected = out.logits.log_softmax(-1) - early.log_softmax(-1)
    guided = DoLa(layers="low", alpha=0.97).prepare(lm)
    given, _ = guided(IDS, None)
    kept = given > -math.inf
    assert guided.candidates == [0] and kept.any() and not kept.all()
    assert close(given[kept], expected[kept], torch.float64)
    assert torch.equal(kept, out.logits.softmax(-1) >= 0.97 * out.logits.softmax(-1).amax(-1, keepdim=True))


def test_it_composes_with_speculation_and_differs_from_greedy() -> None:
    lm, prompt = decoding_lm("hybrid"), IDS[0].tolist()
    guided = DoLa(alpha=0.05).prepare(lm)
    assert guided.candidates == [0] and DoLa(layers="high").prepare(lm).candidates == [2]
    tokens = generate(lm, prompt, DoLa(alpha=0.05), 20).all()
    assert generate(guided, prompt, Lookup(guesses=3), 20).all() == tokens
    assert tokens != generate(lm, prompt, Greedy(), 20).all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(PacelineError, match="alpha must be above 0"):
        DoLa(alpha=0.0)
    with pytest.raises(PacelineError, match="no layer high enough"):
        DoLa(layers="high").prepare(foreign("llama"))
