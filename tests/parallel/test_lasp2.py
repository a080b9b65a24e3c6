"""Facts about LASP-2: a case by hand, and that states travel while the rest is computed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.tolerances import relative_error, tolerance
from paceline.parallel._chunks import Part
from paceline.parallel._contract import Shape
from paceline.parallel._link import Link, Pending
from paceline.parallel._ranks import run_ranks
from paceline.parallel.gather_attention import GatherAttention
from paceline.parallel.lasp import LASP
from paceline.parallel.lasp2 import LASP2
from paceline.parallel.ring import Ring

NUMBERS = torch.tensor([1.0, 2.0, 3.0, 4.0])


def by_hand(link: Link) -> dict[str, Any]:
    """One head of width 1: q = k = 1, v = 1, 2, 3, 4, and heads that keep all or half."""
    v = link.part(NUMBERS.view(1, 1, 4, 1), 2)
    one = torch.ones_like(v)
    v = v.clone().requires_grad_()
    found = {}
    for name, how, rate in (
        ("all", LASP2(link), None),
        ("half", LASP2(link), torch.tensor([2.0]).log()),
        ("both ways", LASP2(link, causal=False), None),
    ):
        outputs = how(one, one, v, rate)
        (gradient,) = torch.autograd.grad(outputs.sum(), v)
        found[name] = [outputs.flatten().tolist(), gradient.flatten().tolist()]
    return found


def test_four_tokens_by_hand() -> None:
    first, second = run_ranks(by_hand, 2)
    whole = {name: [a + b for a, b in zip(first[name], second[name], strict=True)] for name in first}
    assert whole["all"] == [[1.0, 3.0, 6.0, 10.0], [4.0, 3.0, 2.0, 1.0]]
    assert whole["both ways"] == [[10.0] * 4, [4.0] * 4]
    expected = [[1.0, 2.5, 4.25, 6.125], [1.875, 1.75, 1.5, 1.0]]
    assert [pytest.approx(row) for row in expected] == whole["half"]


class Mark(torch.autograd.Function):
    """Tells when its gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: list[str]) -> Tensor:
        ctx.order = order
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.order.append("inside")
        return gradients[0], None


def test_the_states_travel_while_the_products_inside_chunks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    gather, wait, inside = Link.gather, Pending.wait, Part.inside

    def marked(part: Part) -> Tensor:
        order.append("inside")
        return inside(replace(part, q=Mark.apply(part.q, order)))

    monkeypatch.setattr(Link, "gather", lambda link, x: order.append("leave") or gather(link, x))
    monkeypatch.setattr(Pending, "wait", lambda pending: order.append("arrive") or wait(pending))
    monkeypatch.setattr(Part, "inside", marked)
    parts = [torch.randn(1, 2, 130, 4, requires_grad=True) for _ in range(3)]
    outputs = LASP2(Link())(*parts)
    assert order == ["leave", "inside", "arrive"]
    order.clear()
    outputs.sum().backward()
    assert order == ["leave", "inside", "arrive"]


def test_bytes_do_not_grow_with_the_length_and_rounds_not_with_the_processes() -> None:
    short, long = Shape(1, 4, 4_096, 64, 64, 4), Shape(1, 4, 1 << 20, 64, 64, 4)
    assert LASP2.traffic(long, 0) == LASP2.traffic(short, 0)
    assert Ring.traffic(long, 0).total == 256 * Ring.traffic(short, 0).total
    many = Shape(1, 4, 1 << 20, 64, 64, 64)
    assert LASP2.traffic(many, 5).rounds == 2 and LASP.traffic(many, 5).rounds == 2 * 63
    assert LASP2.traffic(many, 5).forward == 63 * LASP.traffic(many, 5).forward  # the price of it


def test_the_chain_goes_one_way() -> None:
    with pytest.raises(PacelineError, match="take LASP2 where tokens see both ways"):
        LASP(Link(), causal=False)


def test_recalled_tells_what_came_from_others() -> None:
    facts = run_ranks(recalled, 2)
    assert facts[0]["recalled"] == 0 and 0.3 < facts[1]["recalled"] < 1


def recalled(link: Link) -> dict[str, float]:
    how, one = LASP2(link), torch.ones(1, 1, 4, 2)
    how(one, one, one)
    return how.meters()


def test_queries_that_are_read_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.parallel.gather_attention.ROWS", 3)
    how = GatherAttention(Link())
    q, k, v = (torch.randn(1, heads, 8, 4, dtype=torch.float64) for heads in (4, 2, 2))
    assert relative_error(how(q, k, v), how.naive(q, k, v)) <= tolerance("float64")
