"""Self-speculation: no layer reads a token twice, and a model whose later layers do nothing accepts every guess."""

import pytest
import torch
from _lms import decoding_lm

from paceline.core.errors import PacelineError
from paceline.decode._generate import generate
from paceline.decode._speculate import BEHIND
from paceline.decode.greedy import Greedy
from paceline.decode.layerskip import LayerSkip
from paceline.lm.layers import LayeredDecoder, layered

PROMPT = [3, 1, 4, 1, 5, 2, 6, 5, 3, 1, 4]


def idle(lm):
    """The same model, whose layers after the first add nothing."""
    for layer in list(lm.layers)[1:]:
        with torch.no_grad():
            layer.o.weight.zero_()
            layer.down.weight.zero_()
    return lm


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_where_later_layers_change_nothing_every_guess_is_accepted(temperature):
    lm = idle(decoding_lm("lean llama"))
    stream = generate(lm, PROMPT, LayerSkip(1, guesses=3, temperature=temperature), 17, seed=1)
    stream.all()
    assert stream.counts.accepted == stream.counts.drafted == 12
    assert stream.counts.calls == 1 + 4 and stream.counts.helper_calls == 12


def loud(decoder):
    """The same model, whose layers after the first say much, so that the first guesses poorly."""
    with torch.no_grad():
        for layer in decoder.stack[1:]:
            for parameter in layer.parameters():
                parameter.mul_(3)
    return decoder


class Counted(LayeredDecoder):
    """How many tokens each layer read."""

    def __init__(self, decoder):
        super().__init__(decoder)
        self.read = {0: 0, 1: 0}

    def __call__(self, ids, state=None):
        for index in self.read:
            self.read[index] += ids.shape[1] if state is None else state.to_read(ids).shape[1]
        return super().__call__(ids, state)

    def through(self, x, past, start, *, first=0):
        for index in range(first, first + len(past)):
            self.read[index] += x.shape[1]
        return super().through(x, past, start, first=first)


def test_verifying_reads_nothing_again():
    lm = Counted(loud(decoding_lm("attention")))
    stream = generate(lm, PROMPT, LayerSkip(1, guesses=3, patience=100), 20)
    assert stream.all() == generate(lm.decoder, PROMPT, Greedy(), 20).all()
    assert stream.counts.drafted > stream.counts.accepted
    assert lm.read[0] == lm.read[1]  # what the first layer read to guess, it does not read again to verify
    assert lm.read[0] < (2 + BEHIND / 4) * stream.counts.read  # refusals are read anew, but not all of them for ever


@pytest.mark.parametrize("kind", ["attention", "ema", "hybrid", "lean llama"])
def test_the_state_is_that_of_plain_reading(kind):
    lm = layered(decoding_lm(kind) if kind == "lean llama" else loud(decoding_lm(kind)))
    stream = generate(lm, PROMPT, LayerSkip(1, guesses=3, patience=100), 12)
    assert stream.all() == generate(lm, PROMPT, Greedy(), 12).all()
    assert stream.counts.drafted > stream.counts.accepted
    past = stream.past
    more = torch.tensor([[2, 7, 1]])
    expected, _ = lm(torch.tensor([[*past.ids, 2, 7, 1]]), None)
    logits, _ = lm(more, past.state)
    torch.testing.assert_close(logits, expected[:, -3:])


def test_what_cannot_work_is_refused():
    for kind in ("gpt2", "mamba", "ema"):
        with pytest.raises(PacelineError, match="cannot be run apart"):
            generate(decoding_lm(kind), PROMPT, LayerSkip(1), 3)
    with pytest.raises(PacelineError, match="has 2 layers: exit_layer must be below that, not 2"):
        generate(decoding_lm("lean llama"), PROMPT, LayerSkip(2), 3)
