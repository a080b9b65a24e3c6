"""What every way to divide a sequence promises: the outputs and gradients of one process, and the bytes it declares."""

import functools
from typing import Any

import pytest
import torch
from torch.nn import functional

from paceline.core.discovery import load, methods
from paceline.core.errors import PacelineError
from paceline.core.tolerances import relative_error, tolerance
from paceline.parallel._contract import SequenceParallel, Shape
from paceline.parallel._link import Link, Told, rounds
from paceline.parallel._ranks import run_ranks

SIZES = (1, 2, 3, 4)
PARTS = (1, 5, 64, 130)
"""Tokens of a process: one, fewer than a chunk, a chunk, and more than two."""
DTYPES = ("float64", "float32")
HEADS, KEYS, VALUES = 4, 6, 5


def drawn(dtype: str, length: int, kv_heads: int, seed: int) -> list[torch.Tensor]:
    """Queries, keys, values of the whole sequence, and gradients of the outputs: the same in every process."""
    draws = torch.Generator().manual_seed(seed)
    shapes = ((HEADS, KEYS), (kv_heads, KEYS), (kv_heads, VALUES), (HEADS, VALUES))
    return [
        torch.randn(2, heads, length, width, generator=draws, dtype=torch.float64).to(getattr(torch, dtype))
        for heads, width in shapes
    ]


def cases(how: SequenceParallel) -> list[tuple[int, bool]]:
    """(heads of keys, whether heads forget) that it may be asked for."""
    if not how.linear:
        return [(HEADS, False), (2, False), (1, False)]
    return [(HEADS, False), (HEADS, True)] if how.causal else [(HEADS, False)]


def all_checks(link: Link) -> dict[str, Any]:
    """In one process of a group: every example of every method, on every length and precision."""
    return {
        method: [
            check(link, how, part, dtype, *case)
            for how in load("parallel", method).example(link)
            for part in PARTS
            for dtype in DTYPES
            for case in cases(how)
        ]
        for method in methods("parallel")
    }


def check(link: Link, how: SequenceParallel, part: int, dtype: str, kv_heads: int, forgets: bool) -> dict[str, Any]:
    """One training step."""
    whole = drawn(dtype, part * link.size, kv_heads, part)
    rate = torch.tensor([0.0, 0.004, 0.1, 1.5], dtype=whole[0].dtype) if forgets else None
    given = [z.requires_grad_() for z in whole[:3]]
    expected = how.naive(*given, rate)
    wanted = [expected.detach(), *torch.autograd.grad(expected, given, whole[3])]
    mine = [link.part(z, 2).detach().requires_grad_() for z in whole[:3]]
    link.sent = 0
    with link.recorded() as forward:
        outputs = how(*mine, rate)
    sent = [link.sent]
    with link.recorded() as backward:
        found = [outputs.detach(), *torch.autograd.grad(outputs, mine, link.part(whole[3], 2))]
    sent.append(link.sent - sent[0])
    shape = Shape(2, HEADS, part * link.size, KEYS, VALUES, link.size, kv_heads, outputs.element_size())
    declared = how.traffic(shape, link.rank)
    size = max(w.square().mean().sqrt().item() for w in wanted)  # a part may see next to nothing
    return {
        "case": f"{type(how).__name__} causal={how.causal} part={part} {dtype} kv={kv_heads} forgets={forgets}",
        "dtype": dtype,
        "errors": [relative_error(a, link.part(b, 2), 0.1 * size) for a, b in zip(found, wanted, strict=True)],
        "sent": sent,
        "declared": [declared.forward, declared.backward],
        "rounds": [declared.forward_rounds, declared.backward_rounds],
        "logs": [[list(vars(told).values()) for told in log] for log in (forward, backward)],
        "meters": how.meters(),
    }


@functools.cache
def group(size: int) -> list[dict[str, Any]]:
    """What the processes of a group found, started once."""
    return run_ranks(all_checks, size)


def ran(method: str, size: int) -> list[list[dict[str, Any]]]:
    """By process, what it found of a method."""
    return [facts[method] for facts in group(size)]


each = pytest.mark.parametrize(("method", "size"), [(m, n) for m in methods("parallel") for n in SIZES], ids=str)


@each
def test_outputs_and_gradients_are_those_of_one_process(method: str, size: int) -> None:
    for rank, found in enumerate(ran(method, size)):
        assert len(found) >= 16
        for case in found:
            assert len(case["errors"]) == 4
            assert all(error <= tolerance(case["dtype"]) for error in case["errors"]), (rank, case)


@each
def test_as_many_bytes_are_sent_as_declared(method: str, size: int) -> None:
    for facts in ran(method, size):
        for case in facts:
            assert case["sent"] == case["declared"], case["case"]
    total = sum(sum(case["sent"]) for facts in ran(method, size) for case in facts)
    assert (total == 0) == (size == 1)


@each
def test_as_many_messages_follow_one_another_as_declared(method: str, size: int) -> None:
    every = ran(method, size)
    for same in zip(*every, strict=True):
        for way in (0, 1):
            logs = [[Told(*told) for told in case["logs"][way]] for case in same]
            assert rounds(logs) == same[0]["rounds"][way], same[0]["case"]


@pytest.mark.parametrize("method", methods("parallel"))
def test_what_does_not_fit_is_refused(method: str) -> None:
    link = Link()
    q = torch.zeros(1, 4, 6, 2)
    for how in load("parallel", method).example(link):
        with pytest.raises(PacelineError, match="do not fit together"):
            how(q, q[:, :, :5], q[:, :, :5])
        with pytest.raises(PacelineError, match="heads of queries over 3 of keys"):
            how(q, q[:, :3], q[:, :3])
        if not (how.linear and how.causal):
            with pytest.raises(PacelineError, match="leave the rate out"):
                how(q, q, q, torch.zeros(4))


@pytest.mark.parametrize("method", methods("parallel"))
def test_the_meters_are_numbers_in_0_to_1(method: str) -> None:
    for facts in ran(method, 2):
        assert all(0 <= value <= 1 for case in facts for value in case["meters"].values())


def test_a_length_that_does_not_divide_is_refused_with_the_mend() -> None:
    link = Link()
    link.size = 4
    with pytest.raises(PacelineError, match="10 tokens does not divide over 4 processes: pad it to 12, or cut it to 8"):
        link.part(torch.zeros(1, 10))
    padded = functional.pad(torch.arange(10.0).view(1, 10), (0, 2))
    link.rank = 3
    assert link.part(padded).tolist() == [[9.0, 0.0, 0.0]]
