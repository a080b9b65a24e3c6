"""What `benchmarks/mixers.py` found, as tables for people and as a picture."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from paceline.core.files import write_atomic
from paceline.report import palette
from paceline.report.layout import axes, spread, text_width, write_at
from paceline.report.svg import draw, standalone


def verdict(target: dict[str, Any]) -> str:
    if target["found"] is None:
        return "not installed"
    met = target["found"] >= target["least"] if "least" in target else target["found"] <= target["most"]
    return "met" if met else "MISSED"


def show(result: dict[str, Any], targets: bool) -> None:
    """The tables, for people; targets are for the sizes that they were written for."""
    console = Console(width=None if Console().is_terminal else 120)
    table = Table("layer", "ms", "tokens/s", "x attention", "of product rate", "peak MB", "passes attention at")
    for name, row in result["rows"].items():
        if row is None:
            table.add_row(name, "not installed")
            continue
        share = "" if row["share_of_product_rate"] is None else f"{row['share_of_product_rate']:.0%}"
        passes = result["curves"].get(name, {}).get("passes_attention_at") or ""
        table.add_row(
            name, f"{row['ms']:.1f}", f"{row['tokens_per_second']:,.0f}", f"{row['over_attention']:.2f}", share,
            "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}", str(passes),
        )  # fmt: skip
    console.print(table)
    table = Table("peer", "version", "what differs", "part, times its speed")
    for name, peer in result["peers"].items():
        times = ", ".join(f"{part} {ratio:.2f}" for part, ratio in peer["times"].items() if ratio is not None)
        table.add_row(name, peer["version"] or "not installed", peer["differs"], times)
    console.print(table)
    if not targets:
        return
    table = Table("target", "against", "asked", "found", "")
    for target in result["targets"]:
        asked = f">= {target['least']:g}" if "least" in target else f"<= {target['most']:g}"
        number = "" if target["found"] is None else f"{target['found']:.2f}"
        table.add_row(target["part"], target["against"], asked, number, verdict(target))
    console.print(table)


def draw_curves(found: dict[str, Any], path: Path) -> None:
    """Two log-log panels, time and memory a token against length, each line named at its end."""
    width, height, gap = 860.0, 330.0, 30.0
    room = max(map(text_width, found)) + 24

    def paint(figure: Any) -> None:
        half = (width - gap) / 2
        for left, kind, scale, title in ((0.0, "us", 1.0, "µs a token"), (half + gap, "bytes", 1e-3, "kB a token")):
            box = left + 40, 40.0, left + half - room, height - 30
            ax = axes(figure, box)
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ends = []
            for index, (name, curve) in enumerate(found.items()):
                style = {"color": palette.hue(index), "linestyle": palette.dash(index), "linewidth": 1.7}
                xs, ys = list(curve[kind]), [scale * max(v, 1.0) for v in curve[kind].values()]
                ax.plot(xs, ys, marker=palette.marker(index), markersize=4.5, markeredgewidth=0, **style)
                ends.append((name, index, xs[-1], ys[-1]))
            ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1024:g}k")
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            ax.minorticks_off()
            ax.autoscale_view()  # before the ends are asked for
            heights = [float(ax.transData.transform((x, y))[1]) for _, _, x, y in ends]
            for (name, index, *_), place in zip(ends, spread(heights, 12.5, box[1], box[3]), strict=True):
                write_at(figure, box[2] + 14, place - 3.4, name, color=palette.hue(index))
            write_at(figure, left, height - 14, f"{title}, forward and backward", color=palette.INK)
            write_at(figure, box[2], 6, "tokens", color=palette.MUTED, ha="right")

    label = "Time and memory a token of each mixer against the length of the sequence."
    write_atomic(path, standalone(draw(width, height, "mixers", paint), label))
