"""Facts about prefix linear attention: how it reads a prompt, and that nothing behind the prompt is seen before it."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close, tolerance
from paceline.lm.decoder import Decoder
from paceline.mixers._polynomial import CHUNK, features, prefix_attention, told
from paceline.mixers.jrt import JRT, naive_jrt

LENGTH = CHUNK + 22


def build(seed=0, **options):
    torch.manual_seed(seed)
    return JRT(**{"d_model": 8, "heads": 2, "features": 3, **options}).double()


def sequence(*shape, seed=1):
    return torch.randn(*shape, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 16])
def test_features_are_the_exponentials_second_taylor_polynomial(n):
    q, k = (torch.randn(2, 1, n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    scores = q.transpose(-1, -2) @ k
    assert features(q).shape[-2] == 1 + n + n * (n + 1) // 2 == JRT(8, 1, features=n).expanded
    assert close(features(q).transpose(-1, -2) @ features(k), 1 + scores + scores**2 / 2, q.dtype)


@pytest.mark.parametrize("length", [CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 5 * CHUNK + 7])
def test_slab_by_slab_is_the_whole_and_the_gradients_are_those_of_small_steps(length, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    given = [torch.randn(2, length, 2, n, dtype=torch.float64, generator=draw).requires_grad_() for n in (3, 3, 4)]
    s = torch.randn(2, 2, 10, 4, dtype=torch.float64, generator=draw).requires_grad_()
    weights = [torch.randn(shape, dtype=torch.float64, generator=draw) for shape in (given[2].shape, s.shape, s.shape)]

    def taken():
        y, after = prefix_attention(*given, s)
        sums = told(given[1], given[2], s.dtype)
        loss = sum((z * w).sum() for z, w in zip((y, after, sums), weights, strict=True))
        return [y, after, sums, *torch.autograd.grad(loss, (*given, s))]

    whole = taken()
    monkeypatch.setattr("paceline.mixers._polynomial.SLAB", 2 * CHUNK)
    for one, other in zip(taken(), whole, strict=True):
        assert close(one, other, torch.float64)
    few = [z[:, :5].detach().requires_grad_() for z in given]
    assert torch.autograd.gradcheck(prefix_attention, (*few, s))


@pytest.mark.parametrize("prompt", [0, 1, 5, CHUNK, CHUNK + 1, LENGTH])
def test_equals_the_formula_with_every_prompt(prompt):
    mixer, x = build(), sequence(2, LENGTH)
    assert close(mixer.after_prompt(x, prompt), naive_jrt(mixer, x, prompt), x.dtype)


@pytest.mark.parametrize("prompt", [1, 9, CHUNK + 3])
def test_the_prompt_is_read_both_ways_and_what_follows_is_not(prompt):
    mixer, x = build(), sequence(1, LENGTH).requires_grad_()
    for at in (0, prompt - 1, prompt, LENGTH - 2):
        (seen,) = torch.autograd.grad(mixer.after_prompt(x, prompt)[:, at].sum(), x)
        assert seen.abs().amax((0, 2)).nonzero().flatten().tolist() == list(range(max(at + 1, prompt)))


@pytest.mark.parametrize("prompt", [1, 9, CHUNK + 3])
def test_the_state_after_a_prompt_continues_it_exactly(prompt):
    mixer, x = build(), sequence(3, LENGTH)
    whole = mixer.after_prompt(x, prompt)
    told, state = mixer.read_prompt(x[:, :prompt])
    assert close(told, whole[:, :prompt], x.dtype)
    outputs = []
    for token in x[:, prompt:].split(1, dim=1):
        y, state = mixer.extend(token, state)
        outputs.append(y)
    assert close(torch.cat(outputs, dim=1), whole[:, prompt:], x.dtype)
    assert (
        sum(tensor.nbytes for tensor in state.values()) == mixer.state_bytes(3, LENGTH) == mixer.state_bytes(3, 10**6)
    )


def test_a_decoder_reads_its_prompt_as_in_training():
    lm = Decoder(7, [build(seed=0), build(seed=1)], hidden=16).double()
    ids = torch.randint(7, (2, 20), generator=torch.Generator().manual_seed(0))
    whole = lm.logits(ids, prompt=12)
    told, state = lm.read_prompt(ids[:, :12])
    later, state = lm(ids[:, 12:], state)
    assert lm.looks_ahead and close(torch.cat((told, later), dim=1), whole, whole.dtype)
    assert not torch.allclose(lm.logits(ids)[:, 0], whole[:, 0], atol=1e-3)


def test_two_tokens_by_hand():
    mixer = JRT(1, heads=1, features=1).double()
    with torch.no_grad():
        mixer.proj.copy_(torch.tensor([[1.0], [2.0], [3.0], [-1.0], [5.0]]))  # q, k, v, k', v'
        mixer.out.weight.fill_(1.0)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64).view(1, 2, 1)

    def weight(score):
        return 1 + score + score**2 / 2

    told, later = {1: weight(-1), 2: weight(-2)}, {1: weight(-2), 2: weight(-4)}  # of the first query, the second
    first = (told[1] * 5 + told[2] * 10 + weight(2) * 3) / (told[1] + told[2] + weight(2))
    causal = {1: weight(4), 2: weight(8)}
    second = (later[1] * 5 + later[2] * 10 + causal[1] * 3 + causal[2] * 6) / sum((*later.values(), *causal.values()))
    y, _ = mixer.read_prompt(x)
    assert y.flatten().tolist() == pytest.approx([first, second], rel=1e-12)


def test_without_the_encoder_a_prompt_changes_nothing():
    mixer, x = build(encoder=False), sequence(2, 30)
    assert torch.equal(mixer.after_prompt(x, 20), mixer(x))
    assert close(mixer.read_prompt(x)[0], mixer(x), x.dtype)
    assert mixer.proj.shape == (2 * 2 * 3 + 8, 8) and build().proj.shape == (3 * 2 * 3 + 16, 8)


def test_every_weight_learns_from_a_prompt():
    mixer = build()
    (mixer.after_prompt(sequence(4, 30), 20) * sequence(4, 30, seed=2)).sum().backward()
    assert all((p.grad.abs().amax(1) > 0).all() for p in mixer.parameters())


def test_the_meter_is_the_share_of_attention_on_later_tokens():
    mixer, x = build(), sequence(2, 40)
    mixer(x)
    assert mixer.meters() == {}
    mixer.after_prompt(x, 30)
    assert mixer.meters()["ahead"] == pytest.approx(2 * math.log(2) - 1, abs=0.1)  # mean of (1 - u) / (1 + u)
    mixer.after_prompt(x, 1)
    assert mixer.meters()["ahead"] == 0
    with torch.no_grad():
        mixer.proj.zero_()  # then all weights are 1: of the query at i, 30 + i + 1 in all, 29 - i ahead
    mixer.after_prompt(x, 30)
    expected = sum((29 - i) / (31 + i) for i in range(30)) / 30
    assert mixer.meters()["ahead"] == pytest.approx(expected)


@pytest.mark.parametrize("prompt", [0, 20, CHUNK + 5, 2 * CHUNK + 1])
def test_declared_products_with_a_prompt(prompt):
    torch.manual_seed(0)
    mixer = JRT(64)
    x = torch.randn(2, 2 * CHUNK + 50, 64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        mixer.after_prompt(x, prompt)
    assert mixer.flops(2, x.shape[1]).products == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_a_long_text_in_half_precision_keeps_its_sums():
    torch.manual_seed(0)
    mixer, x = JRT(8, heads=2, features=3).bfloat16(), torch.randn(1, 1_500, 8).bfloat16()
    _, state = mixer.extend(x, mixer.initial_state(1))
    count = state["s"][0, :, 0, -1]  # the constant feature of every token: bfloat16 would stop at 256
    assert count.tolist() == [1_500, 1_500] and tolerance(state["s"].dtype) < 1e-3


@pytest.mark.parametrize(
    ("options", "says"),
    [({"heads": 3}, "8 is not a multiple of heads=3"), ({"heads": 0}, "heads=0"), ({"features": 0}, "features=0")],
)
def test_sizes_that_do_not_fit_are_refused(options, says):
    with pytest.raises(PacelineError, match=says):
        build(**options)
