"""What the scan mixers cost beside others: `python benchmarks/scans.py [--out FILE]`, on an idle machine.

Forward and backward of one layer at batch 4 x 2,048 x width 256, and of Mamba at 1,024 to 65,536 tokens, all in one
process; prints a JSON object of seconds (the median of the repeats) and their ratios. Mamba's peers are `mambapy` and
transformers' layer without its kernels, where they are installed; both take its weights. The latter is slow: it runs
once. Aaren's peer is attention.
"""

import argparse
import importlib
import json
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from paceline.core.files import write_atomic
from paceline.mixers.aaren import Aaren
from paceline.mixers.attention import Attention
from paceline.mixers.mamba import Mamba
from paceline.race.result import environment

BATCH, LENGTH, WIDTH = 4, 2_048, 256
LENGTHS = (1_024, 4_096, 16_384, 65_536)


def mambapy() -> nn.Module | None:
    """The block of the package, or nothing where it is not installed."""
    try:
        module = importlib.import_module("mambapy.mamba")
    except ImportError:
        return None
    return module.MambaBlock(module.MambaConfig(d_model=WIDTH, n_layers=1))


def transformers() -> nn.Module | None:
    """The mixer of the package, token by token as it is without CUDA."""
    try:
        module = importlib.import_module("transformers.models.mamba.modeling_mamba")
    except ImportError:
        return None
    return module.MambaMixer(module.MambaConfig(hidden_size=WIDTH, num_hidden_layers=1, use_mambapy=False), 0)


def seconds(layer: nn.Module, x: Tensor, repeats: int) -> float:
    """Forward and backward: the median after a first run, or that one where it is the only one."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        layer(x).sum().backward()
        found.append(time.perf_counter() - began)
    return median(found[1:] or found)


def difference(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    """Largest difference of the outputs, in units of theirs."""
    with torch.no_grad():
        expected = theirs(x)
        return ((ours(x) - expected).abs().max() / expected.square().mean().sqrt()).item()


def measure(repeats: int) -> dict[str, object]:
    """Everything."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, LENGTH, WIDTH, requires_grad=True)
    mamba = Mamba(WIDTH)
    taken = {"mamba": seconds(mamba, x, repeats)}
    differences = {}
    for name, peer, often in (("mambapy", mambapy(), repeats), ("transformers", transformers(), 1)):
        if peer is not None:
            peer.load_state_dict(mamba.state_dict())
            differences[name] = difference(mamba, peer, x[:1, :256])
            taken[name] = seconds(peer, x, often)
    taken |= {"aaren": seconds(Aaren(WIDTH), x, repeats), "attention": seconds(Attention(WIDTH), x, repeats)}
    per_token = {
        name: {t: seconds(layer, torch.randn(1, t, WIDTH, requires_grad=True), repeats) / t * 1e6 for t in LENGTHS}
        for name, layer in (("mamba", mamba), ("aaren", Aaren(WIDTH)))
    }
    ratios = {name: taken[name] / taken["mamba"] for name in ("mambapy", "transformers") if name in taken}
    ratios["attention over aaren"] = taken["attention"] / taken["aaren"]
    return {
        "shape": [BATCH, LENGTH, WIDTH], "threads": torch.get_num_threads(), "seconds": taken, "ratios": ratios,
        "differences": differences, "microseconds a token": per_token, "environment": environment(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--out", type=Path, help="write the JSON object there, too")
    arguments = parser.parse_args()
    text = json.dumps(measure(arguments.repeats), indent=1)
    if arguments.out is not None:
        write_atomic(arguments.out, text.encode())
    print(text)


if __name__ == "__main__":
    main()
