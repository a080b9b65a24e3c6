"""Facts about the mixture of experts and its load-balancing loss."""

import copy
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from paceline.blocks.moe import MoE, naive_moe
from paceline.blocks.swiglu import SwiGLU
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.lm.checkpoint import load_model, save_model
from paceline.lm.config import Config, build, fit

DOUBLE = torch.float64


def built(dtype=DOUBLE, **options):
    torch.manual_seed(0)
    return MoE(6, 10, **options).to(dtype)


def tokens(*shape, seed=1, dtype=DOUBLE):
    return torch.randn(*shape, 6, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def by_the_first_two(**options):
    """A router of two experts whose logits are x_0 and x_1."""
    part = MoE(2, 3, experts=2, **{"top": 1, "balance": 1.0, **options}).double()
    with torch.no_grad():
        part.router.weight.copy_(torch.eye(2))
    return part


LOG3 = math.log(3.0)
LEFT, RIGHT = [LOG3, 0.0], [0.0, LOG3]  # p = (3/4, 1/4) and (1/4, 3/4)


@pytest.mark.parametrize(("experts", "top"), [(1, 1), (4, 1), (4, 2), (4, 4), (5, 3)])
def test_equals_the_loop_over_tokens_and_its_gradients(experts, top):
    part = built(experts=experts, top=top)
    x, twin = tokens(2, 17).requires_grad_(), tokens(2, 17).requires_grad_()
    weight = tokens(2, 17, seed=2)
    (part(x) * weight).sum().backward()
    found = {"x": x.grad, **{name: p.grad.clone() for name, p in part.named_parameters()}}
    part.zero_grad()
    y = naive_moe(part, twin.flatten(0, 1)).view(2, 17, 6)
    (y * weight).sum().backward()
    assert close(part(x), y, DOUBLE)
    for name, expected in {"x": twin.grad, **{name: p.grad for name, p in part.named_parameters()}}.items():
        assert close(found[name], expected, DOUBLE, least=0.1), name


def test_experts_that_are_copies_of_one_are_that_one():
    part, one = built(experts=3), SwiGLU(6, 10).double()
    with torch.no_grad():
        part.inner.copy_(one.inner.weight.expand_as(part.inner))
        part.outer.copy_(one.outer.weight.expand_as(part.outer))
    assert close(part(tokens(2, 9)), one(tokens(2, 9)), DOUBLE)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([LEFT, RIGHT], 1.0),  # balanced: f = P = (1/2, 1/2)
        ([LEFT, LEFT], 2 * 3 / 4),  # f = (1, 0), P = (3/4, 1/4)
        ([LEFT, LEFT, LEFT, RIGHT], 2 * (3 / 4 * 5 / 8 + 1 / 4 * 3 / 8)),
    ],
)
def test_the_loss_by_hand(rows, expected):
    part = by_the_first_two()
    part(torch.tensor([rows], dtype=DOUBLE))
    assert part.auxiliary_loss().item() == pytest.approx(expected, rel=1e-12)
    doubled = by_the_first_two(top=2)
    doubled(torch.tensor([rows], dtype=DOUBLE))
    assert doubled.auxiliary_loss().item() == pytest.approx(1.0)  # both experts always: f is uniform


def test_the_scopes_by_hand():
    """Two sequences of one kind each: no balance in either, perfect balance in both together."""
    x = torch.tensor([[LEFT, LEFT], [RIGHT, RIGHT]], dtype=DOUBLE)
    losses = {}
    for scope in ("sequence", "micro", "global"):
        part = by_the_first_two(scope=scope)
        part(x)
        losses[scope] = part.auxiliary_loss().item()
    assert losses == pytest.approx({"sequence": 1.5, "micro": 1.0, "global": 1.0})
    one, alone = by_the_first_two(scope="sequence"), by_the_first_two(scope="micro")
    one(x[:1]), alone(x[:1])
    assert one.auxiliary_loss().item() == alone.auxiliary_loss().item() == pytest.approx(1.5)


def test_passes_of_a_step_add_up_as_in_the_papers_buffer():
    part = by_the_first_two()
    part.begin_step()
    part(torch.tensor([[LEFT, LEFT]], dtype=DOUBLE))
    assert part.auxiliary_loss().item() == pytest.approx(1.5)  # the first pass knows its own counts alone
    part(torch.tensor([[RIGHT, RIGHT]], dtype=DOUBLE))
    assert part.auxiliary_loss().item() == pytest.approx(1.0)  # f = (1/2, 1/2) by now
    part(torch.tensor([[RIGHT, RIGHT]], dtype=DOUBLE))
    assert part.auxiliary_loss().item() == pytest.approx(2 * (1 / 3 * 1 / 4 + 2 / 3 * 3 / 4))
    part.begin_step()
    part(torch.tensor([[RIGHT, RIGHT]], dtype=DOUBLE))
    assert part.auxiliary_loss().item() == pytest.approx(1.5)
    micro = by_the_first_two(scope="micro")
    micro.begin_step()
    for row in (LEFT, RIGHT):
        micro(torch.tensor([[row]], dtype=DOUBLE))
        assert micro.auxiliary_loss().item() == pytest.approx(1.5)


def test_without_begin_step_each_pass_is_a_step():
    part = by_the_first_two()
    for row in (LEFT, RIGHT, RIGHT):
        part(torch.tensor([[row]], dtype=DOUBLE))
        assert part.auxiliary_loss().item() == pytest.approx(1.5)


def test_evaluation_neither_counts_nor_asks():
    part = by_the_first_two()
    part.begin_step()
    with torch.no_grad():
        part(torch.tensor([[LEFT] * 5], dtype=DOUBLE))
    part.eval()(torch.tensor([[LEFT] * 5], dtype=DOUBLE))
    assert part.auxiliary_loss().item() == 0
    part.train()(torch.tensor([[LEFT, RIGHT]], dtype=DOUBLE))
    assert part.auxiliary_loss().item() == pytest.approx(1.0)


@pytest.mark.parametrize("top", [1, 2, 3])
def test_the_loss_is_top_times_smaller_than_that_of_transformers(top):
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    part, x = built(experts=5, top=top, balance=1.0, scope="micro"), tokens(3, 40)
    part(x)
    logits = x.flatten(0, 1) @ part.router.weight.T
    theirs = mixtral.load_balancing_loss_func((logits,), 5, top)
    assert close(top * part.auxiliary_loss(), theirs, torch.float32)


def test_uniform_probabilities_cost_1_and_collapse_costs_e():
    part = built(experts=4, top=1, balance=1.0)
    with torch.no_grad():
        part.router.weight.zero_()
    part(tokens(2, 50))
    assert part.auxiliary_loss().item() == pytest.approx(1.0)
    with torch.no_grad():
        part.router.weight[0, 0] = 100.0
    x = tokens(2, 50)
    x[..., 0] = 1.0
    part(x)
    assert part.auxiliary_loss().item() == pytest.approx(4.0)
    assert part.meters() == {"balance": 0.0}


def test_only_the_router_hears_the_loss_and_following_it_balances():
    part, x = built(experts=4, top=2, balance=1.0), tokens(4, 64)
    x = x + 2 * torch.nn.functional.one_hot(torch.tensor(0), 6)  # most tokens to the same experts
    with torch.no_grad():
        part.router.weight[:, 0] = torch.tensor([1.0, 0.5, 0.0, -0.5])
    before = []
    for _ in range(200):
        part(x)
        before.append(part.meters()["balance"])
        part.zero_grad()
        part.auxiliary_loss().backward()
        assert part.inner.grad is None and part.router.weight.grad.abs().sum() > 0
        with torch.no_grad():
            part.router.weight -= 0.1 * part.router.weight.grad
    assert before[0] < 0.9 and before[-1] > 0.99


def test_the_order_of_tokens_does_not_matter():
    part, x = built(experts=4), tokens(1, 40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    y, loss = part(x), part.auxiliary_loss()
    assert close(part(x[:, order]), y[:, order], DOUBLE) and close(part.auxiliary_loss(), loss, DOUBLE)


def test_use_counts_every_choice_of_every_sequence():
    part, x = built(experts=4, top=2), tokens(3, 11)
    part(x)
    assert part.use.shape == (3, 4) and part.use.sum(1).tolist() == [22, 22, 22]
    part(x[1:2])
    alone = part.use
    part(x)
    assert torch.equal(part.use[1:2], alone)
    assert 0 < part.meters()["balance"] < 1


def test_half_precision_routes_in_single_precision():
    part, x = built(torch.bfloat16, experts=4), tokens(2, 9, dtype=torch.bfloat16)
    assert part.route(x.flatten(0, 1)).dtype == torch.float32 and part(x).dtype == torch.bfloat16
    single = built(torch.float32, experts=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert single.route(x.float().flatten(0, 1)).dtype == torch.float32
        assert single(x.float()).isfinite().all()
    assert part.auxiliary_loss().dtype == torch.float32


@pytest.mark.parametrize(("experts", "top"), [(4, 1), (8, 2)])
def test_declared_operations_are_what_torch_counts(experts, top):
    part = MoE(16, 40, experts=experts, top=top)
    with FlopCounterMode(display=False) as counter:
        part(torch.randn(2, 33, 16))
    assert part.flops(2, 33) == counter.get_total_flops()


def test_a_module_with_a_loss_at_hand_can_be_copied():
    part, x = built(), tokens(2, 9)
    part(x)
    assert torch.equal(copy.deepcopy(part)(x), part(x)) and part.auxiliary_loss().requires_grad


def test_a_decoder_sums_its_layers_losses_and_reads_their_meters():
    config = Config(7, 16, 8, ("ema(dims=4)",) * 2, feed_forward="moe(experts=3, top=1)")
    torch.manual_seed(0)
    model = build(config)
    ids = torch.randint(7, (2, 12))
    model.begin_step()
    model.logits(ids)
    parts = [layer.feed_forward.auxiliary_loss().item() for layer in model.stack]
    assert model.auxiliary_loss().item() == pytest.approx(sum(parts)) and min(parts) > 0.005
    assert {"balance.0", "balance.1"} <= model.meters().keys()


def test_parameters_are_matched_with_all_experts_counted():
    config = fit(["ema"], 256, 60_000, feed_forward="moe(experts=4)")
    size = sum(p.numel() for p in build(config).parameters())
    assert abs(size - 60_000) < 2_000 and config.feed_forward == "moe(experts=4)"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"experts": 2, "top": 3}, "top=3 of experts=2"),
        ({"experts": 0, "top": 1}, "experts=0"),
        ({"top": 0}, "top=0"),
        ({"balance": -1.0}, "balance=-1.0"),
        ({"balance": float("nan")}, "balance=nan"),
        ({"scope": "batch"}, "scopes are sequence, micro, global"),
    ],
)
def test_what_makes_no_sense_is_refused(options, says):
    with pytest.raises(PacelineError, match=says):
        MoE(6, 10, **options)


def test_a_saved_model_loads_again(tmp_path):
    config = Config(256, 16, 8, ("ema(dims=4)",), feed_forward="moe(experts=3, top=1, scope='micro')")
    torch.manual_seed(0)
    model, ids = build(config), torch.randint(256, (2, 12))
    model.begin_step()
    model.logits(ids)  # what it has counted is no part of it
    save_model(model, config, tmp_path / "model")
    loaded, again = load_model(tmp_path / "model")
    assert again == config and torch.equal(loaded.logits(ids), model.logits(ids))
    assert loaded.stack[0].feed_forward.scope == "micro"
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert close(theirs(ids).logits, model.logits(ids), torch.float32)
