"""Where a contestant chose to act: a sample's text with every token lit as far as the layer activated it."""

import math
from collections.abc import Sequence
from typing import Any

from paceline.report.words import count, percent, visible

LEVELS = 5
"""Shades of light; a gate g > 0 has level ceil(g * LEVELS), at most LEVELS."""
MOST_TOKENS = 1500
"""Tokens of the sample that are written out; the strips show all."""
BINS = 480
"""Columns of a strip; longer sequences are averaged."""


def level(gate: float | None) -> int:
    """0 for a token that the layer did not activate, else 1 to `LEVELS` by the gate's probability."""
    return 0 if not gate or gate < 0 else min(LEVELS, max(1, math.ceil(gate * LEVELS - 1e-9)))


def runs(tokens: Sequence[str], gates: Sequence[float | None]) -> list[tuple[int, str]]:
    """`(level, text)` in reading order. Tokens that are not lit are joined; text is visible, and not yet escaped."""
    joined: list[tuple[int, str]] = []
    for token, gate in zip(tokens, gates, strict=False):
        lit, text = level(gate), visible(token, newline="↵\n")
        if not lit and joined and not joined[-1][0]:
            joined[-1] = (0, joined[-1][1] + text)
        else:
            joined.append((lit, text))
    return joined


def rates(gates: Sequence[float | None], bins: int = BINS) -> list[float]:
    """Share of tokens activated in each of at most `bins` equal stretches of the sequence."""
    size = len(gates)
    bins = min(bins, size)
    edges = [size * i // bins for i in range(bins + 1)] if bins else []
    return [sum(level(g) > 0 for g in gates[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]


def strip(gates: Sequence[float | None]) -> str:
    """An SVG that stretches to any width: one column per stretch of the sequence, darker where more is activated."""
    columns = rates(gates)
    shades: dict[int, str] = {}
    start = 0
    for i, rate in enumerate(columns):
        shade = math.ceil(rate * 10 - 1e-9)
        if i + 1 < len(columns) and math.ceil(columns[i + 1] * 10 - 1e-9) == shade:
            continue
        if shade:
            shades[shade] = shades.get(shade, "") + f"M{start} 0H{i + 1}V1H{start}z"
        start = i + 1
    paths = "".join(f'<path d="{path}" style="fill-opacity: {s / 10:g}" />' for s, path in sorted(shades.items()))
    label = f"Share of tokens activated along the sequence, {percent(_share(gates))} in all"
    box = f'viewBox="0 0 {max(1, len(columns))} 1" preserveAspectRatio="none"'
    return f'<svg class="strip" {box} role="img" aria-label="{label}">{paths}</svg>'


def views(result: dict[str, Any]) -> list[dict[str, Any]]:
    """For each contestant and task with a trace, what the page shows of its first one (by seed)."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in result["cells"]:
        if cell["trace"] and cell["trace"]["tokens"] and cell["trace"]["layers"]:
            key = cell["contestant"], cell["task"]
            best[key] = min(best.get(key, cell), cell, key=lambda c: c["seed"])
    titles = {task["name"]: task["title"] for task in result["tasks"]}
    order = {name: i for i, name in enumerate(result["contestants"])}
    chosen = sorted(best.items(), key=lambda pair: order[pair[0][0]])
    return [
        {"contestant": name, "task": titles.get(task, task), "seed": cell["seed"], **_view(cell["trace"])}
        for (name, task), cell in chosen
    ]


def _view(trace: dict[str, Any]) -> dict[str, Any]:
    tokens = trace["tokens"]
    layers = []
    for layer in trace["layers"]:
        gates = layer["gates"][: len(tokens)]
        lit = [g for g in gates if level(g)]
        average = f", mean gate there {sum(lit) / len(lit):.2f}" if lit else ""
        layers.append({
            "name": f"Layer {layer['layer']}",
            "share": percent(_share(gates)),
            "caption": f"{count(len(lit))} of {count(len(gates))} tokens activated ({percent(_share(gates))}){average}",
            "strip": strip(gates),
            "runs": runs(tokens[:MOST_TOKENS], gates),
        })  # fmt: skip
    return {"layers": layers, "size": count(len(tokens)), "shown": count(min(len(tokens), MOST_TOKENS)),
            "cut": len(tokens) > MOST_TOKENS}  # fmt: skip


def _share(gates: Sequence[float | None]) -> float:
    return sum(level(g) > 0 for g in gates) / len(gates) if gates else 0.0
