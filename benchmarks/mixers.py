"""What the mixers cost beside attention and their peers: `python benchmarks/mixers.py [--quick] [--out FILE]`.

Forward and backward of one layer on an idle machine, all in one process, one after the other in every repeat. First at
batch 4 x 2,048 x width 256: time, share of the machine's rate of matrix products, peak memory, and ratios of tokens a
second to a bare attention layer and to the fastest other implementations (`mixers_peers.py`; `pip install
paceline[bench]`, and checkouts of authors' code: `--seqboat PATH --s4 PATH --aaren PATH`). Then, in a process that
keeps the memory it frees, one sequence of 1,024 to 65,536 tokens: cost a token, by how much it grows, and the length
from which a part is faster than attention. Writes results/bench/mixers.json and a picture. A quarter of an hour on two
cores, two minutes of it one pass of transformers' Mamba.
"""

import argparse
import ctypes
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mixers_peers import CHECKOUTS, HEADS, MEMORY, PEERS, WIDTH, WINDOW, half_active, made, version
from mixers_shown import draw_curves, show
from timing import seconds
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.discovery import methods, part
from paceline.core.files import write_atomic
from paceline.lm.train import peak_memory, reset_peak_memory
from paceline.mixers._contract import Mixer
from paceline.race.result import environment

STORED = Path(__file__).parents[1] / "results" / "bench" / "mixers.json"
FLAT = 1.25
PATIENCE = 5.0
"""Seconds: a layer whose pass takes longer is timed once, and attention goes no further where the next would."""
REPEATS = 7
"""Passes that a curve's medians are taken of."""
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("attention", {}),
    "attention(window=128)": ("attention", {"window": WINDOW}),
    **{name: (name, {}) for name in ("lightning", "ema", "s4d", "s4", "transnormer", "jrt", "aaren", "mamba")},
    "transnormer(positions=False)": ("transnormer", {"positions": False}),
    "retnet(expansion=1)": ("retnet", {"expansion": 1}),
    "seqboat": ("seqboat", {"memory": MEMORY}),
}
BARE = "bare attention"
# part: what it is measured against -> the least ratio; besides, every part is to be as fast as its fastest peer
TARGETS: dict[str, dict[str, float]] = {
    "attention": {BARE: 0.97},
    "attention(window=128)": {BARE: 1.5, "local-attention": 1.5},
    **{name: {BARE: 1.5} for name in ("lightning", "ema", "s4d", "transnormer", "jrt")},
    "seqboat": {BARE: 1.0, "SeqBoat's authors": 1.5},
    "mamba": {"mambapy": 10.0, "transformers Mamba": 100.0},
    "aaren": {"mambapy": 10.0, "transformers Mamba": 100.0},
}
FLAT_PARTS = ("lightning", "ema", "s4d", "transnormer", "jrt", "seqboat", "mamba", "aaren")


class BareAttention(nn.Module):
    """Four maps and torch's fused causal attention, nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (linear(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for linear in self.maps[:3])
        heads = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.maps[3](heads.transpose(1, 2).flatten(2))


def ours(x: Tensor) -> dict[str, nn.Module]:
    """Every part that the package has, and the bare layer."""
    there = set(methods("mixers"))
    layers = {name: part("mixers", stem)(WIDTH, **options) for name, (stem, options) in PARTS.items() if stem in there}
    router = layers["seqboat"].configurator.logits
    nn.init.normal_(router.weight, std=0.1)
    half_active(layers["seqboat"], router, x)
    return {BARE: BareAttention(), **layers}


def trained(layer: nn.Module, x: Tensor) -> None:
    """Forward and backward."""
    layer(x).sum().backward()


def read(layer: nn.Module, x: Tensor) -> None:
    """Forward alone."""
    with torch.no_grad():
        layer(x)


def peak(run: Callable[[], object]) -> int:
    """Bytes that a run takes above what was held before it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else what earlier runs have freed would count as held
    reset_peak_memory()
    before = peak_memory()
    run()
    return peak_memory() - before


def timed(layers: dict[str, nn.Module], inputs: dict[str, Tensor], repeats: int) -> dict[str, list[float]]:
    """Seconds a token of each repeat after the warm-up, the layers in turn; of one that is very slow, its first."""
    once: set[str] = set()
    found: dict[str, list[float]] = {name: [] for name in layers}
    for repeat in range(repeats + 1):
        for name in [name for name in layers if name not in once]:
            taken = seconds(partial(trained, layers[name], inputs[name]))
            if repeat == 0 and taken > PATIENCE:
                once.add(name)
            if repeat or name in once:
                found[name].append(taken / inputs[name].shape[:2].numel())
    return found


def product_rate() -> float:
    """Operations a second of a large product in single precision, the best of five."""
    a = torch.randn(2048, 2048)
    return 2.0 * 2048**3 / min(seconds(lambda: a @ a) for _ in range(5))


def side_by_side(x: Tensor, repeats: int, checkouts: dict[str, Path]) -> dict[str, Any]:
    """The first half: rows of parts and peers, and whether the targets are met."""
    others = {name: made(peer, checkouts) for name, peer in PEERS.items()}
    layers = ours(x) | {name: layer for name, layer in others.items() if layer is not None}
    inputs = dict.fromkeys(layers, x)
    for name, peer in PEERS.items():
        if peer.shape is not None:
            inputs[name] = x[: peer.shape[0], : peer.shape[1]].detach().clone().requires_grad_()
    rate, taken = product_rate(), timed(layers, inputs, repeats)
    rows: dict[str, Any] = {name: None for name in others}
    for name, layer in layers.items():
        (batch, length), each = inputs[name].shape[:2], median(taken[name])
        flops = 3 * layer.flops(batch, length).total if isinstance(layer, Mixer) else None
        slow = each * batch * length > PATIENCE
        rows[name] = {
            "shape": [batch, length],
            "ms": 1e3 * each * batch * length,
            "tokens_per_second": 1 / each,
            "over_attention": ratio(taken, BARE, name),
            "share_of_product_rate": flops and flops / (each * batch * length) / rate,
            "peak_bytes": None if slow else peak(partial(trained, layer, inputs[name])),
            "activated": layer.meters().get("activated") if isinstance(layer, Mixer) else None,
        }
    targets = [
        {"part": name, "against": rival, "least": least, "found": ratio(taken, rival, name)}
        for name in PARTS if name in taken for rival, least in asked(name, taken).items()
    ]  # fmt: skip
    told = {
        name: {"version": version(peer, checkouts), "differs": peer.differs}
        | {"times": {part: ratio(taken, name, part) for part in peer.parts if part in taken}}
        for name, peer in PEERS.items()
    }
    return {"product_rate": rate, "rows": rows, "peers": told, "targets": targets}


def asked(name: str, taken: dict[str, list[float]]) -> dict[str, float]:
    """What a part is measured against: its fastest peer among others."""
    rivals = [rival for rival, peer in PEERS.items() if name in peer.parts and rival in taken]
    fastest = {min(rivals, key=lambda rival: median(taken[rival])): 1.0} if rivals else {}
    return fastest | TARGETS.get(name, {})


def ratio(taken: dict[str, list[float]], rival: str, name: str) -> float | None:
    """How many times faster a part is: the median over repeats, each of which has both, or of the medians."""
    if rival not in taken:
        return None
    if len(taken[rival]) == len(taken[name]):
        return median(theirs / mine for theirs, mine in zip(taken[rival], taken[name], strict=True))
    return median(taken[rival]) / median(taken[name])


def curves(layers: dict[str, nn.Module], lengths: list[int], work: Callable) -> dict[str, dict[str, dict[int, float]]]:
    """Microseconds a token at each length, the median of passes after one that is not counted.

    All lengths are gone through in every repeat, so that a machine whose speed drifts is the same for all.
    """
    inputs = {length: torch.randn(1, length, WIDTH, requires_grad=work is trained) for length in lengths}
    taken: dict[tuple[str, int], list[float]] = {}
    for length in lengths:
        for name, layer in layers.items():
            before = taken.get((name, length // 2), [0.0 if length == lengths[0] else PATIENCE])
            if "attention" not in name or 4 * before[0] < PATIENCE:
                taken[name, length] = [seconds(partial(work, layer, inputs[length]))]
    for _ in range(REPEATS):
        for (name, length), passes in taken.items():
            passes.append(seconds(partial(work, layers[name], inputs[length])))
    found: dict[str, dict[str, dict[int, float]]] = {name: {"us": {}} for name in layers}
    for (name, length), values in taken.items():
        found[name]["us"][length] = 1e6 * median(values[1:]) / length
    bare = found[BARE]["us"]
    for curve in found.values():
        slower = [n for n in lengths if n in bare and n in curve["us"] and curve["us"][n] >= bare[n]]
        later = [n for n in curve["us"] if n > max(slower, default=0)]
        curve["passes_attention_at"] = min(later, default=None)  # type: ignore[assignment]
    return found


def held(layers: dict[str, nn.Module], times: dict[str, Any]) -> None:
    """Adds the bytes a token at the lengths that were timed, the median of passes, and by how much the costs grow."""
    for name, curve in times.items():
        curve["bytes"] = {}
        for length in curve["us"]:
            x = torch.randn(1, int(length), WIDTH, requires_grad=True)
            run = partial(trained, layers[name], x)
            curve["bytes"][length] = median(peak(run) for _ in range(3)) / int(length)
        curve["growth"] = {kind: growth(list(curve[kind].values())) for kind in ("us", "bytes")}


def growth(costs: list[float]) -> float:
    """The largest cost a token over the least at any shorter length, at least 1."""
    return max([1.0, *(later / min(costs[:i]) for i, later in enumerate(costs) if i)])


def flatness(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Targets on the cost a token, which should not grow."""
    return [
        {"part": name, "against": f"flat in {kind}", "most": FLAT, "found": found[name]["growth"][key]}
        for name in FLAT_PARTS if name in found for kind, key in (("time", "us"), ("memory", "bytes"))
    ]  # fmt: skip


def long_texts(lengths: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The second half: times of training, and of reading where a part is for that alone."""
    torch.manual_seed(0)
    costs = curves(ours(torch.randn(1, 1024, WIDTH)), lengths, trained)
    if "hip" not in methods("mixers"):
        return costs, {}
    readers = {BARE: BareAttention().eval(), "hip": part("mixers", "hip")(WIDTH).eval()}
    return costs, curves(readers, [n for n in lengths if n <= 16_384], read)


def with_kept_memory(run: Callable[[list[int]], Any], lengths: list[int]) -> Any:
    """`run` in a process that keeps the memory it frees, so that no layer pays for mapping and clearing its large
    tensors anew in every pass: that cost is the system's, and sets in at 32 MB a tensor, whatever the layer.
    """
    os.environ.update(KEPT)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(run, lengths).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs")
    for name, repository in CHECKOUTS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help=f"a checkout of {repository}")
    parser.add_argument("--out", type=Path, default=STORED)
    arguments = parser.parse_args()
    checkouts = {name: path.resolve() for name in CHECKOUTS if (path := getattr(arguments, name)) is not None}
    torch.manual_seed(0)
    batch, length, repeats = (2, 256, 2) if arguments.quick else (4, 2_048, 5)
    lengths = [128, 256, 512] if arguments.quick else [1024 * 2**i for i in range(7)]
    x = torch.randn(batch, length, WIDTH, requires_grad=True)
    versions = {}
    with suppress(metadata.PackageNotFoundError):
        versions["numba"] = metadata.version("numba")
    result = {"environment": environment() | versions, "threads": torch.get_num_threads()}
    result |= {"shape": list(x.shape)} | side_by_side(x, repeats, checkouts) | {"curves_environment": KEPT}
    result["curves"], result["inference"] = with_kept_memory(long_texts, lengths)
    held(ours(x), result["curves"])
    result["targets"] += flatness(result["curves"])
    show(result, targets=not arguments.quick)
    write_atomic(arguments.out, json.dumps(result, indent=1) + "\n")
    draw_curves(result["curves"], arguments.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
