"""Facts about attention: what a window sees, grouped heads, both ways, and equality with torch's own function."""

import pytest
import torch
from torch.nn import functional

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.lm.decoder import Decoder
from paceline.mixers.attention import Attention, mean_pool


def build(seed=0, **options):
    torch.manual_seed(seed)
    return Attention(**{"d_model": 16, "heads": 4, **options}).double()


def sequence(*shape, seed=1):
    return torch.randn(*shape, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seen_by(mixer, x, at):
    """Positions that the output at `at` depends on."""
    x = x.clone().requires_grad_()
    mixer(x)[:, at].sum().backward()
    return x.grad.abs().amax(dim=(0, 2)).nonzero().flatten().tolist()


@pytest.mark.parametrize("window", [1, 2, 5, 17, 64])
def test_a_window_sees_exactly_that_many_tokens(window):
    mixer, x = build(window=window), sequence(2, 90)
    for at in (0, 3, 40, 89):
        assert seen_by(mixer, x, at) == list(range(max(0, at - window + 1), at + 1))


def test_a_window_of_one_passes_only_the_value():
    mixer, x = build(window=1), sequence(2, 30)
    value = mixer.qkv(x)[..., 32:]
    assert close(mixer(x), mixer.out(value), x.dtype)


@pytest.mark.parametrize("length", [1, 31, 32])
def test_a_window_that_holds_everything_is_full_attention(length):
    full, windowed = build(), build(window=32)
    x = sequence(2, length)
    assert torch.equal(full(x), windowed(x))
    assert full.flops(2, length) == windowed.flops(2, length)


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("window", [None, 3])
def test_grouped_queries_are_attention_with_repeated_keys_and_values(kv_heads, window):
    grouped, full = build(kv_heads=kv_heads, window=window), build(window=window)
    q, k, v = grouped.qkv.weight.split((16, 4 * kv_heads, 4 * kv_heads))
    repeated = [w.unflatten(0, (kv_heads, 4)).repeat_interleave(4 // kv_heads, dim=0).flatten(0, 1) for w in (k, v)]
    with torch.no_grad():
        full.qkv.weight.copy_(torch.cat((q, *repeated)))
        full.out.weight.copy_(grouped.out.weight)
    x = sequence(2, 20)
    assert close(grouped(x), full(x), x.dtype)
    assert grouped.state_bytes(1, 20) - 8 == (full.state_bytes(1, 20) - 8) * kv_heads / 4


def test_equals_torch_scaled_dot_product_attention():
    mixer, x = build(rotary=False), sequence(2, 33)
    q, k, v = (z.unflatten(-1, (4, 4)).transpose(1, 2) for z in functional.linear(x, mixer.qkv.weight).chunk(3, dim=-1))
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    assert close(mixer(x), functional.linear(mixed, mixer.out.weight), x.dtype)


def test_three_tokens_by_hand():
    mixer = Attention(2, heads=1, rotary=False)
    with torch.no_grad():
        mixer.qkv.weight.copy_(torch.eye(2).repeat(3, 1))
        mixer.out.weight.copy_(torch.eye(2))
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    e = torch.tensor(2.0**-0.5).exp()  # a score of 1 over sqrt(2); 2 over sqrt(2) is e^2
    second = torch.tensor([1.0, e]) / (1 + e)
    third = torch.tensor([e + e**2, e + e**2]) / (2 * e + e**2)
    assert close(mixer(x), torch.stack((x[0, 0], second, third)).unsqueeze(0), x.dtype)


def test_rotary_knows_the_distance_and_nothing_else():
    mixer, x = build(window=4), sequence(1, 12)
    repeated = torch.cat((x, x), dim=1)  # from the fourth token of the second copy on, the window holds the same
    y = mixer(repeated)
    assert close(y[:, 15:], y[:, 3:12], torch.float32)  # the precision of the angles
    swapped = x[:, [1, 0, 2, *range(3, 12)]]
    assert not close(mixer(swapped)[:, 3], mixer(x)[:, 3], torch.float32)
    blind = build(window=4, rotary=False)
    assert close(blind(swapped)[:, 3], blind(x)[:, 3], x.dtype)  # order inside the window is invisible


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"heads": 3}, "16 is not a multiple of heads=3"),
        ({"heads": 0}, "heads=0"),
        ({"heads": -4}, "heads=-4"),
        ({"kv_heads": 3}, "heads=4 is not a multiple of kv_heads=3"),
        ({"kv_heads": 0}, "kv_heads=0"),
        ({"kv_heads": 8}, "kv_heads=8"),
        ({"window": 0}, "window=0 sees nothing"),
        ({"window": -1}, "window=-1"),
        ({"heads": 16}, "head width must be even, not 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, says):
    with pytest.raises(PacelineError, match=says):
        build(**options)


def test_an_odd_head_width_is_fine_without_rotary():
    x = sequence(1, 3)
    assert build(heads=16, rotary=False)(x).shape == x.shape


def test_both_ways_equals_torch_without_a_mask():
    mixer, x = build(rotary=False, causal=False), sequence(2, 33)
    q, k, v = (z.unflatten(-1, (4, 4)).transpose(1, 2) for z in functional.linear(x, mixer.qkv.weight).chunk(3, dim=-1))
    mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    assert close(mixer(x), functional.linear(mixed, mixer.out.weight), x.dtype)
    assert seen_by(mixer, x, 0) == list(range(33))


def test_both_ways_cannot_be_continued_nor_decode_nor_have_a_window():
    mixer = build(causal=False)
    with pytest.raises(PacelineError, match="it cannot be continued"):
        mixer.extend(sequence(1, 3), mixer.initial_state(1))
    with pytest.raises(PacelineError, match="an encoder, not a decoder"):
        Decoder(5, [mixer], hidden=0)
    with pytest.raises(PacelineError, match="a window is of earlier tokens"):
        build(causal=False, window=8)


def test_the_meter_is_of_query_heads_that_share_and_of_what_they_read():
    full, x = build(), sequence(2, 30)
    full(x)
    assert full.meters() == build(kv_heads=1).meters() == {}
    shared = build(kv_heads=2)
    shared(x)
    read = shared._attend(*shared._project(x, start=0)).detach().unflatten(1, (2, 2))  # two heads for each pair
    expected = (read.var(dim=2, unbiased=False).mean() / read.square().mean()).item()
    assert shared.meters()["diversity"] == pytest.approx(expected, rel=1e-5) and 0.01 < expected < 0.99


def test_query_heads_that_ask_the_same_read_the_same():
    mixer, x = build(kv_heads=1), sequence(2, 30)
    with torch.no_grad():
        mixer.qkv.weight[:16] = mixer.qkv.weight[:4].repeat(4, 1)
    mixer(x)
    assert mixer.meters()["diversity"] == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        mixer.qkv.weight[20:] = 0  # values
    mixer(x)
    assert mixer.meters()["diversity"] == 0


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"causal": False}, {"rotary": False}])
def test_mean_pooling_copied_heads_changes_nothing(options):
    full, x = build(**options), sequence(2, 20)
    with torch.no_grad():
        k, v = full.qkv.weight[16:].unflatten(0, (2, 4, 4)).unbind()
        for heads in (k, v):  # two pairs of twins
            heads[1], heads[3] = heads[0], heads[2]
    pooled = mean_pool(full, 2)
    assert close(pooled(x), full(x), x.dtype) and pooled.qkv.weight.shape == (16 + 2 * 8, 16)
    assert pooled.qkv.weight.requires_grad and all(p.grad is None for p in pooled.parameters())


def test_mean_pooling_takes_the_mean_of_each_group():
    full = build()
    pooled = mean_pool(full, 2)
    _, k, _ = full.qkv.weight.split(16)
    assert torch.equal(pooled.qkv.weight[:16], full.qkv.weight[:16])
    assert close(pooled.qkv.weight[20:24], (k[8:12] + k[12:16]) / 2, k.dtype)
    assert torch.equal(mean_pool(full, 4).qkv.weight, full.qkv.weight)
    for heads in (0, 3, 8):
        with pytest.raises(PacelineError, match=f"kv_heads={heads} does not divide the layer's 4"):
            mean_pool(full, heads)
