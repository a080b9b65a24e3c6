"""What the mixers cost beside attention and their peers: `python benchmarks/mixers.py [--quick] [--out FILE]`.

Forward and backward of one layer on an idle machine, all in one process, one after the other in every repeat. First at
batch 4 x 2,048 x width 256: time, share of the machine's rate of matrix products, peak memory, and ratios to a bare
attention layer and to other implementations, where they are installed (`pip install paceline[bench]`; the authors'
SeqBoat from a checkout, `--seqboat PATH`). Then one sequence of 1,024 to 65,536 tokens: cost a token, by how much it
grows, and the length from which a part is faster than attention. Writes results/bench/mixers.json and a picture beside
it. About a quarter of an hour on two cores, half of it for transformers' path.
"""

import argparse
import ctypes
import importlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mixers_shown import draw_curves, show
from torch import Tensor, nn
from torch.nn import functional

from paceline.core.discovery import methods, part
from paceline.core.files import write_atomic
from paceline.lm.train import peak_memory, reset_peak_memory
from paceline.mixers._contract import Mixer
from paceline.race.result import environment

STORED = Path(__file__).parents[1] / "results" / "bench" / "mixers.json"
WIDTH, HEADS, WINDOW, MEMORY = 256, 4, 128, 64
FLAT = 1.25
PATIENCE = 20.0
"""Seconds: a part whose next length would take longer goes no further."""
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("attention", {}),
    "attention(window=128)": ("attention", {"window": WINDOW}),
    **{name: (name, {}) for name in ("lightning", "ema", "s4d", "s4", "transnormer", "jrt", "aaren", "mamba")},
    "seqboat": ("seqboat", {"memory": MEMORY}),
}
BARE = "bare attention"
# part: what it is measured against -> the least ratio of times
TARGETS: dict[str, dict[str, float]] = {
    "attention": {BARE: 0.97},
    "attention(window=128)": {BARE: 1.5, "local-attention": 1.5},
    **{name: {BARE: 1.5} for name in ("lightning", "ema", "s4d", "transnormer", "jrt")},
    "seqboat": {BARE: 1.0, "seqboat's authors": 1.5},
    "mamba": {"mambapy": 10.0, "transformers": 100.0},
    "aaren": {"mambapy": 10.0, "transformers": 100.0},
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


class TimeFirst(nn.Module):
    """A layer of (t, b, d) as one of (b, t, d)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


def ours(x: Tensor) -> dict[str, nn.Module]:
    """Every part that the package has, and the bare layer."""
    there = set(methods("mixers"))
    layers = {name: part("mixers", stem)(WIDTH, **options) for name, (stem, options) in PARTS.items() if stem in there}
    router = layers["seqboat"].configurator.logits
    nn.init.normal_(router.weight, std=0.1)
    half_active(layers["seqboat"], router.weight, router.bias, x)
    return {BARE: BareAttention(), **layers}


def peers(x: Tensor, seqboat: Path | None) -> dict[str, nn.Module | None]:
    """Other implementations; nothing for one that is not there."""

    def local() -> nn.Module:
        module = importlib.import_module("local_attention")
        return module.LocalMHA(dim=WIDTH, window_size=WINDOW, dim_head=WIDTH // HEADS, heads=HEADS, causal=True)

    def mambapy() -> nn.Module:
        module = importlib.import_module("mambapy.mamba")
        return module.MambaBlock(module.MambaConfig(d_model=WIDTH, n_layers=1))

    def transformers() -> nn.Module:
        module = importlib.import_module("transformers.models.mamba.modeling_mamba")
        return module.MambaMixer(module.MambaConfig(hidden_size=WIDTH, num_hidden_layers=1, use_mambapy=False), 0)

    def authors() -> nn.Module:
        if seqboat is None:
            raise ImportError
        sys.path.insert(0, str(seqboat))
        layer = importlib.import_module("standalone_seqboat").SeqBoatLayer(
            WIDTH, WIDTH // 4, 2 * WIDTH, 16, attention_activation="softmax", window_size=MEMORY, rel_pos_bias="rotary"
        )
        nn.init.normal_(layer.hx_proj.weight[:2], std=0.1)
        whole = TimeFirst(layer)
        half_active(whole, layer.hx_proj.weight, layer.hx_proj.bias, x, layer.hx_proj)
        return whole

    found: dict[str, nn.Module | None] = {}
    makers = {"local-attention": local, "mambapy": mambapy, "transformers": transformers, "seqboat's authors": authors}
    for name, make in makers.items():
        found[name] = None
        with suppress(ImportError):
            found[name] = make()
    return found


@torch.no_grad()
def half_active(layer: nn.Module, weight: Tensor, bias: Tensor, x: Tensor, router: nn.Module | None = None) -> None:
    """Sets the bias of a router's first two outputs so that half of the tokens are activated."""
    seen: list[Tensor] = []
    router = layer.configurator.logits if router is None else router
    hook = router.register_forward_hook(lambda _, inputs, output: seen.append(output))
    bias[:2] = 0
    layer(x)
    hook.remove()
    bias[1] = (seen[0][..., 0] - seen[0][..., 1]).median()


def trained(layer: nn.Module, x: Tensor) -> None:
    """Forward and backward."""
    layer(x).sum().backward()


def read(layer: nn.Module, x: Tensor) -> None:
    """Forward alone."""
    with torch.no_grad():
        layer(x)


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def peak(run: Callable[[], object]) -> int:
    """Bytes that a run takes above what was held before it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else what earlier runs have freed would count as held
    reset_peak_memory()
    before = peak_memory()
    run()
    return peak_memory() - before


def timed(layers: dict[str, nn.Module], x: Tensor, repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat after the warm-up, the layers in turn; one that is very slow runs once."""
    found: dict[str, list[float]] = {name: [seconds(partial(trained, layer, x))] for name, layer in layers.items()}
    slow = {name for name, taken in found.items() if taken[0] > PATIENCE}
    for _ in range(repeats):
        for name in [name for name in layers if name not in slow]:
            found[name].append(seconds(partial(trained, layers[name], x)))
    return {name: taken if name in slow else taken[1:] for name, taken in found.items()}


def product_rate() -> float:
    """Operations a second of a large product in single precision, the best of five."""
    a = torch.randn(2048, 2048)
    return 2.0 * 2048**3 / min(seconds(lambda: a @ a) for _ in range(5))


def side_by_side(x: Tensor, repeats: int, seqboat: Path | None) -> dict[str, Any]:
    """The first half: rows of parts and peers, and whether the targets are met."""
    others = peers(x, seqboat)
    layers = ours(x) | {name: layer for name, layer in others.items() if layer is not None}
    rate, taken, tokens = product_rate(), timed(layers, x, repeats), x.shape[0] * x.shape[1]
    middle = {name: median(values) for name, values in taken.items()}
    rows: dict[str, Any] = {name: None for name in others}
    for name, layer in layers.items():
        flops = 3 * layer.flops(*x.shape[:2]).total if isinstance(layer, Mixer) else None
        rows[name] = {
            "ms": 1e3 * middle[name],
            "tokens_per_second": tokens / middle[name],
            "over_attention": ratio(taken, BARE, name),
            "share_of_product_rate": flops and flops / middle[name] / rate,
            "peak_bytes": peak(partial(trained, layer, x)) if middle[name] < PATIENCE else None,
            "activated": layer.meters().get("activated") if isinstance(layer, Mixer) else None,
        }
    targets = [
        {"part": name, "against": rival, "least": least, "found": ratio(taken, rival, name)}
        for name, rivals in TARGETS.items() if name in taken for rival, least in rivals.items()
    ]  # fmt: skip
    return {"shape": list(x.shape), "product_rate": rate, "rows": rows, "targets": targets}


def ratio(taken: dict[str, list[float]], rival: str, name: str) -> float | None:
    """How many times faster a part is: the median over repeats, each of which has both, or of the medians."""
    if rival not in taken:
        return None
    if len(taken[rival]) == len(taken[name]):
        return median(theirs / mine for theirs, mine in zip(taken[rival], taken[name], strict=True))
    return median(taken[rival]) / median(taken[name])


def curves(layers: dict[str, nn.Module], lengths: list[int], repeats: int, work: Callable) -> dict[str, Any]:
    """The second half: microseconds and bytes a token at each length, and from where a part passes attention."""
    found: dict[str, Any] = {name: {"us": {}, "bytes": {}} for name in layers}
    last = dict.fromkeys(layers, 0.0)
    for length in lengths:
        x = torch.randn(1, length, WIDTH, requires_grad=work is trained)
        going = {name: layer for name, layer in layers.items() if 4 * last[name] < PATIENCE or "attention" not in name}
        taken: dict[str, list[float]] = {name: [] for name in going}
        for repeat in range(repeats + 1):
            for name, layer in going.items():
                if not repeat:
                    found[name]["bytes"][length] = peak(partial(work, layer, x)) / length
                else:
                    taken[name].append(seconds(partial(work, layer, x)))
        for name, values in taken.items():
            last[name] = median(values)
            found[name]["us"][length] = 1e6 * last[name] / length
    bare = found[BARE]["us"]
    for curve in found.values():
        slower = [n for n in lengths if n in bare and n in curve["us"] and curve["us"][n] >= bare[n]]
        later = [n for n in curve["us"] if n > max(slower, default=0)]
        curve["passes_attention_at"] = min(later, default=None)
        curve["growth"] = {kind: growth(list(curve[kind].values())) for kind in ("us", "bytes")}
    return found


def growth(costs: list[float]) -> float:
    """How many times what a shorter sequence costs a longer one does, at most; what is prepared once may weigh less."""
    return max([1.0, *(later / min(costs[:i]) for i, later in enumerate(costs) if i)])


def flatness(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Targets on the cost a token, which should not grow."""
    return [
        {"part": name, "against": f"flat in {kind}", "most": FLAT, "found": found[name]["growth"][key]}
        for name in FLAT_PARTS if name in found for kind, key in (("time", "us"), ("memory", "bytes"))
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs")
    parser.add_argument("--seqboat", type=Path, help="a checkout of the authors' code")
    parser.add_argument("--out", type=Path, default=STORED)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    batch, length, repeats = (2, 256, 2) if arguments.quick else (4, 2_048, 5)
    lengths = [128, 256, 512] if arguments.quick else [1024 * 2**i for i in range(7)]
    x = torch.randn(batch, length, WIDTH, requires_grad=True)
    names = ("local-attention", "mambapy", "transformers", "numba")
    versions = {name: metadata.version(name) for name in names if importlib.util.find_spec(name.replace("-", "_"))}
    result = {"environment": environment() | versions, "threads": torch.get_num_threads()}
    result |= side_by_side(x, repeats, arguments.seqboat)
    result["curves"] = curves(ours(x), lengths, 2, trained)
    result["targets"] += flatness(result["curves"])
    if "hip" in methods("mixers"):
        readers = {BARE: BareAttention().eval(), "hip": part("mixers", "hip")(WIDTH).eval()}
        result["inference"] = curves(readers, [n for n in lengths if n <= 16_384], 2, read)
    show(result, targets=not arguments.quick)
    write_atomic(arguments.out, json.dumps(result, indent=1) + "\n")
    draw_curves(result["curves"], arguments.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
