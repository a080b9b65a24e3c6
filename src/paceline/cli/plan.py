"""`paceline plan`: what a training step over a divided sequence should take, before it is run."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from rich.console import Console
from rich.table import Table

from paceline.core.errors import PacelineError
from paceline.parallel._contract import Shape
from paceline.parallel._measure import measure
from paceline.parallel._plan import METHODS, Machine, Prediction, predict

NAMES = {
    "lasp2": "lasp2", "lasp": "lasp (a chain)", "ring": "ring (softmax)", "gather_attention": "gather (softmax)",
}  # fmt: skip


def run(
    length: int,
    devices: Sequence[int],
    layers: int,
    heads: int,
    width: int,
    kv_heads: int,
    batch: int,
    element: int,
    flops: float | None,
    bandwidth: float | None,
    latency: float | None,
    hop: float | None,
    as_json: bool,
) -> None:
    """Print predictions for each number of devices.

    Args:
        length: tokens of a sequence.
        devices: numbers of processes, such as 64 and 1,024.
        layers: layers, all alike.
        heads: heads of a layer.
        width: width of a head.
        kv_heads: heads of keys and values of softmax attention; 0 for as many as `heads`.
        batch: sequences.
        element: bytes of a number.
        flops: operations a second in matrix products; measured here, on the CPU, if left out.
        bandwidth: bytes a second from one device to another; measured here, between processes, if left out.
        latency: seconds of an empty message; measured here if left out.
        hop: seconds of an empty step within a collective. Default: as `latency` where that is given, else measured.
        as_json: JSON in place of a table.

    Raises:
        PacelineError: a size below 1, a length that does not divide, or rates that are not above 0.
    """
    sizes = dict(length=length, layers=layers, heads=heads, width=width, batch=batch, element=element)
    for name, value in (*sizes.items(), *(("devices", n) for n in devices)):
        if value < 1:
            raise PacelineError(f"--{name} must be at least 1, not {value}.")
    if kv_heads < 0 or (kv_heads and heads % kv_heads):
        raise PacelineError(f"--kv-heads {kv_heads} does not divide --heads {heads}.")
    shapes = [Shape(batch, heads, length, width, width, n, kv_heads, element) for n in devices]
    for shape in shapes:  # before anything is measured
        predict("lasp2", shape, layers, Machine(1.0, 1.0, 1.0, 1.0))
    machine = _machine(flops, bandwidth, latency, hop)
    found = [predict(method, shape, layers, machine) for shape in shapes for method in METHODS]
    if as_json:
        print(json.dumps({"machine": asdict(machine), "predictions": [asdict(p) for p in found]}))
        return
    console = Console()
    console.print(_table(found, length, layers))
    measured = [n for n, v in (("products", flops), ("bandwidth", bandwidth), ("latency", latency)) if v is None]
    console.print(
        f"A prediction from {machine.flops:.3g} operations/s, {machine.bandwidth:.3g} bytes/s and "
        f"{machine.message * 1e6:.3g} microseconds a message"
        + (f" ({', '.join(measured)} measured on this machine's CPU)" if measured else "")
        + ". Nothing was run at these sizes; see docs/long-sequences.md for what it leaves out.",
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip


def _machine(flops: float | None, bandwidth: float | None, latency: float | None, hop: float | None) -> Machine:
    """What is given, and the rest as measured."""
    given = {"flops": flops, "bandwidth": bandwidth, "message": latency, "hop": latency if hop is None else hop}
    known = {name: value for name, value in given.items() if value is not None}
    Machine(**{**dict.fromkeys(given, 1.0), **known})  # refused before anything is measured
    return Machine(**known) if len(known) == len(given) else replace(measure(), **known)


def _table(found: Sequence[Prediction], length: int, layers: int) -> Table:
    table = Table(title=f"A training step on {length:,} tokens, {layers} layers")
    for column in ("devices", "method", "predicted s", "of it waiting s", "sent a layer, MB", "rounds a layer"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for p in found:
        table.add_row(
            f"{p.devices:,}", NAMES[p.method], f"{p.seconds:.3g}", f"{p.waiting:.3g}", f"{p.traffic.total / 1e6:,.4g}",
            f"{p.traffic.rounds:,}",
        )  # fmt: skip
    return table
