"""Facts about the wire: what the kernel says was written, and how waiting ends."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from paceline.core.discovery import load, methods
from paceline.core.errors import PacelineError
from paceline.parallel._contract import Shape
from paceline.parallel._link import GATHER, RECEIVE, SEND, Link, Told, rounds
from paceline.parallel._ranks import run_ranks
from paceline.parallel.lasp2 import LASP2

IO = Path("/proc/self/io")


def written() -> int:
    """Bytes that this process has handed to the kernel."""
    return int(next(line for line in IO.read_text().splitlines() if line.startswith("wchar")).split()[1])


def on_the_wire(link: Link) -> dict[str, list[int]]:
    """Declared and written bytes of a training step, by method."""
    found = {}
    for method in methods("parallel"):
        how = load("parallel", method).example(link)[0]
        parts = [torch.ones(1, 4, 512, 64, requires_grad=True) for _ in range(3)]
        how(*parts).sum().backward()  # connections are made
        before = written()
        how(*parts).sum().backward()
        shape = Shape(1, 4, 512 * link.size, 64, 64, link.size)
        found[method] = [how.traffic(shape, link.rank).total, written() - before]
    return found


@pytest.mark.skipif(not IO.exists(), reason="needs Linux's count of what a process writes")
def test_the_kernel_counts_the_same_bytes() -> None:
    """But for headers: a count that only repeated the formula would not tell what a library really sends."""
    for facts in run_ranks(on_the_wire, 3):
        assert facts.keys() == set(methods("parallel"))
        for method, (declared, counted) in facts.items():
            assert declared <= counted <= declared * 1.01 + 4_096, (method, facts)


def told(link: Link, method: str, fault: str) -> dict[str, Any]:
    """What the others say when the last process dies or sleeps; they write it down, for their work is still theirs."""
    how = load("parallel", method).example(link)[0]
    parts = [torch.ones(1, 2, 8, 4, requires_grad=True) for _ in range(3)]
    how(*parts).sum().backward()
    began = time.monotonic()
    if link.rank == link.size - 1:
        if fault == "dies":
            os._exit(0)
        time.sleep(3 * link.patience)
        return {}
    with pytest.raises(PacelineError) as caught:
        for _ in range(2):  # a chain's first process needs nobody, forward
            how(*parts).sum().backward()
    (Path(os.environ["TOLD"]) / str(link.rank)).write_text(f"{time.monotonic() - began}\n{caught.value}")
    return {}


@pytest.mark.parametrize(("method", "fault"), [(m, "dies") for m in methods("parallel")] + [("lasp2", "sleeps")])
def test_who_loses_another_says_so_in_one_sentence(
    method: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLD", str(tmp_path))
    if fault == "dies":
        with pytest.raises(PacelineError, match="Process 2 of 3 ended without an answer"):
            run_ranks(told, 3, patience=20, method=method, fault=fault)
    else:
        run_ranks(told, 3, patience=2, method=method, fault=fault)
    for rank in (0, 1):
        waited, said = (tmp_path / str(rank)).read_text().split("\n")
        assert said.startswith(f"Process {rank} of 3 waited in vain for the others (")
        assert said.endswith("start all of them again from what was last saved.")
        assert float(waited) < 60


def lengths(link: Link) -> dict[str, str]:
    """The last process has a token less."""
    part = torch.ones(1, 2, 8 - (link.rank == 1), 4)
    with pytest.raises(PacelineError) as caught:
        LASP2(link)(part, part, part)
    return {"said": str(caught.value)}


def test_unequal_parts_are_refused() -> None:
    for facts in run_ranks(lengths, 2):
        assert facts["said"].startswith("The processes hold parts of 8, 7 tokens: pad")


def test_rounds_follow_who_waits_for_whom() -> None:
    def log(*told: tuple[str, int]) -> list[Told]:
        return [Told(kind, peer, 1) for kind, peer in told]

    chain = [log((SEND, 1)), log((RECEIVE, 0), (SEND, 2)), log((RECEIVE, 1))]
    assert rounds(chain) == 2
    turn = [log((SEND, 1), (RECEIVE, 1)), log((SEND, 0), (RECEIVE, 0))]
    assert rounds(turn) == 1
    assert rounds([log((GATHER, -1))] * 3) == 1
    assert rounds([log((SEND, 1), (GATHER, -1)), log((RECEIVE, 0), (GATHER, -1))]) == 2
    assert rounds([[], []]) == 0
    with pytest.raises(ValueError, match="same work"):
        rounds([log((RECEIVE, 1)), log((RECEIVE, 0))])


def slow(link: Link) -> dict[str, Any]:
    time.sleep(60)
    return {}


def broken(link: Link) -> dict[str, Any]:
    raise ValueError(f"rank {link.rank} is broken")


def test_a_group_that_fails_or_takes_too_long_is_one_sentence() -> None:
    with pytest.raises(PacelineError, match=r"ended without an answer: ValueError: rank \d is broken"):
        run_ranks(broken, 2)
    with pytest.raises(PacelineError, match="2 processes took longer than 4 s"):
        run_ranks(slow, 2, limit=4)
