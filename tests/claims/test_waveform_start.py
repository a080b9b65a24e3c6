"""Facts about how the encoder claim starts its models on waveforms."""

import pytest
import torch

from paceline.claims.mixers.seqboat import CHUNKS, METHOD, Lottery
from paceline.claims.mixers.seqboat_encoder import SHARES, waveform_start, waveform_start_random_tokens
from paceline.data.keywords import LEVELS, Keywords
from paceline.lm.config import Config, build
from paceline.lm.decoder import Decoder

EVERY = pytest.mark.parametrize("spec", [METHOD, CHUNKS])


def encoder(spec: str, vocab_size: int = Keywords.vocab_size) -> Decoder:
    torch.manual_seed(0)
    return build(Config(vocab_size, 64, 64, (spec,) * 2, form="encoder"))


@EVERY
def test_levels_lie_on_a_line_of_the_usual_variance_and_words_stay(spec):
    model, drawn = encoder(spec), encoder(spec)
    waveform_start(model)
    rows = model.embedding.weight.detach()
    steps = rows[1:LEVELS] - rows[: LEVELS - 1]
    assert torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-5) and steps.norm() > 0.01
    assert rows[:LEVELS].square().sum(1).mean().item() == pytest.approx(1, rel=0.5)
    assert torch.equal(rows[LEVELS:], drawn.embedding.weight[LEVELS:])


@EVERY
def test_memories_range_from_4_to_300_samples(spec):
    model = encoder(spec)
    waveform_start(model)
    for mixer in model.mixers:
        log_q, _, _ = mixer.ema.coefficients()
        memory = (-1 / log_q.expm1()).log().mean(0).exp()  # over channels
        assert memory[0].item() == pytest.approx(4, rel=0.2) and memory[-1].item() == pytest.approx(300, rel=0.2)
        assert (memory.diff() > 0).all()


@EVERY
def test_on_other_tasks_nothing_changes(spec):
    model, drawn = encoder(spec, 16), encoder(spec, 16)
    waveform_start(model)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), drawn.parameters(), strict=True))


def test_the_sham_starts_from_the_same_weights():
    method = encoder(METHOD)
    waveform_start(method)
    sham = encoder(METHOD)
    waveform_start_random_tokens(sham)
    assert all(torch.equal(a, b) for a, b in zip(method.parameters(), sham.parameters(), strict=True))
    assert all(isinstance(mixer.configurator, Lottery) for mixer in sham.mixers)


@torch.no_grad()
def test_the_sham_takes_its_share_of_tokens_by_lot():
    sham = encoder(METHOD)
    waveform_start_random_tokens(sham)
    sham.logits(torch.randint(256, (8, 200)))
    shares = [mixer.meters()["activated"] for mixer in sham.mixers]
    assert shares == pytest.approx(SHARES[Keywords.vocab_size], abs=0.03)
