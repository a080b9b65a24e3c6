"""What products with 4-bit weights cost beside float32 and others' kernels: `python benchmarks/compress.py [--quick]`.

On an idle machine, all in one process, every rival in turn in every repeat; medians. One token and four, at the shapes
of SmolLM2's and of a larger model's maps:
- float32, by torch;
- Paceline's 8 bits (`int8`) and 4 bits (`rtn`), one scale an output;
- torch's own 4-bit product for processors (`_weight_int4pack_mm_for_cpu`, groups of 32), in float32 and bfloat16.
torchao 0.18 has no 4-bit weights for processors: its formats say so, or ask for CUDA.
`bound` is the time that reading Paceline's bytes takes at the measured rate. Writes results/bench/compress.json.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from timing import read_rate, timed
from torch import Tensor, nn

from paceline.compress._packed import Inputs
from paceline.compress.int8 import Int8Linear
from paceline.compress.rtn import RTN
from paceline.core.files import write_json
from paceline.race.result import environment

STORED = Path(__file__).parents[1] / "results" / "bench" / "compress.json"
SHAPES = ((576, 3072), (1536, 576), (4096, 4096), (4096, 14336))
ROWS = (1, 4)
GROUP = 32


def torch_int4(linear: nn.Linear, dtype: torch.dtype) -> Callable[[Tensor], Tensor] | None:
    """torch's own kernel, whose codes are 0 to 15 with a scale and a zero a group; None where it has none."""
    weight = linear.weight.detach()
    parts = weight.unflatten(1, (-1, GROUP))
    scale = parts.abs().amax(2) / 7
    codes = ((parts / scale.unsqueeze(2)).round().clamp(-8, 7) + 8).flatten(1).to(torch.int32)
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        facts = torch.stack((scale, torch.zeros_like(scale)), 2).transpose(0, 1).contiguous().to(dtype)
        run = partial(_int4, packed, facts)
        run(torch.zeros(1, weight.shape[1]))
    except (RuntimeError, AttributeError):
        return None
    return run


def _int4(packed: Tensor, facts: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x.to(facts.dtype), packed, GROUP, facts)


def measured(width: int, outputs: int, rows: int, repeats: int) -> dict[str, float]:
    """Microseconds a call."""
    torch.manual_seed(0)
    linear, x = nn.Linear(width, outputs, bias=False), torch.randn(rows, width)
    rivals: dict[str, Callable[[Tensor], Tensor] | None] = {
        "float32": linear,
        "int8": Int8Linear(linear),
        "rtn, 4 bits": RTN().nearest(linear, Inputs()),
        "torch int4": torch_int4(linear, torch.float32),
        "torch int4, bfloat16": torch_int4(linear, torch.bfloat16),
    }
    calls = max(1, 20_000_000 // (width * outputs))
    runs = {name: partial(rival, x) for name, rival in rivals.items() if rival is not None}
    with torch.no_grad():
        return {name: 1e6 * took for name, took in timed(runs, repeats, calls).items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="a repeat, and nothing is written")
    quick = arguments.parse_args().quick
    rate, found = read_rate(), []
    table = Table("map", "tokens", "rival", "microseconds", "against float32")
    for width, outputs in SHAPES[: 2 if quick else None]:
        for rows in ROWS:
            times = measured(width, outputs, rows, 1 if quick else 15)
            bound = (width * outputs / 2 + 4 * outputs) / rate * 1e6
            found.append({"inputs": width, "outputs": outputs, "tokens": rows, "microseconds": times, "bound": bound})
            for name, value in {**times, "bound": bound}.items():
                ratio = times["float32"] / value
                table.add_row(f"{width:,} x {outputs:,}", str(rows), name, f"{value:,.1f}", f"{ratio:.2f}x")
    Console().print(table)
    if not quick:
        write_json(STORED, {"rows": found, "threads": torch.get_num_threads(), "environment": environment()})


if __name__ == "__main__":
    main()
