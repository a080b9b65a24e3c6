"""Numbers and user text as people read them. A value that is missing (`None`) is shown as a dash."""

import math
import re
from collections.abc import Sequence

DASH = "–"
CURRENCIES = {
    "tokens": "tokens",
    "flops": "FLOP",
    "seconds": "seconds",
    "parameters": "parameters",
    "state_bytes": "state",
    "peak_bytes": "peak memory",
}

# Characters that a page must not obey: C0 and C1 controls, bidirectional controls, line separators, the byte
# order mark, and what XML forbids (lone surrogates, U+FFFE, U+FFFF). Joiners stay: Persian and emoji need them.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufffe\uffff]")


def visible(text: str, newline: str = "↵", keep: str = "") -> str:
    """`text` with every control character made visible: `↵`, `␀`-style symbols, or the code point in brackets.

    `newline` stands for a line feed; the characters in `keep` pass unchanged.
    """

    def show(match: re.Match[str]) -> str:
        char, code = match[0], ord(match[0])
        if char in keep:
            return char
        if char == "\n":
            return newline
        if code < 0x20:
            return chr(0x2400 + code)
        if code == 0x7F:
            return "␡"
        return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"⟨U+{code:04X}⟩"

    return _OBEYED.sub(show, text)


def shorten(text: str, most: int) -> str:
    """At most `most` characters: the middle goes, since names differ at their ends."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 3
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; `None` of nothing."""
    return math.fsum(values) / len(values) if values else None


def decimals(intervals: Sequence[Sequence[float] | None]) -> int:
    """Digits after the point (2 to 5) that give the narrowest interval two significant digits; 3 without any."""
    halves = [(high - low) / 2 for low, high in (i for i in intervals if i) if high > low]
    return min(5, max(2, 1 + math.ceil(-math.log10(min(halves))))) if halves else 3


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Fixed-point with a true minus sign; very large or tiny values as `1.2e-07`."""
    if value is None:
        return DASH
    plain = value == 0 or 10.0**-digits / 2 <= abs(value) < 1e6
    text = f"{value:{'+' if sign else ''},.{digits}f}" if plain else f"{value:{'+' if sign else ''}.2g}"
    return text.replace("-", "−")


def plain(value: float) -> str:
    """At most four significant digits, no trailing zeros: for numbers that someone wrote down, not measured."""
    return f"{value:.4g}".replace("-", "−")


def span(interval: Sequence[float] | None, digits: int = 3, sign: bool = False) -> str:
    """`2.101 to 2.145`."""
    return f"{number(interval[0], digits, sign)} to {number(interval[1], digits, sign)}" if interval else DASH


def p_value(p: float | None) -> str:
    """Three digits, or `< 0.001`."""
    return DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def significant(value: float | None) -> str:
    """Three significant digits, thousands set off, never an exponent between 0.001 and a million."""
    if value is None:
        return DASH
    if value == 0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}".replace("-", "−")
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}".replace("-", "−")


def count(value: float | None) -> str:
    """A whole number with thousands set off."""
    return DASH if value is None else f"{value:,.0f}".replace("-", "−")


def percent(share: float) -> str:
    """`21 %` with a no-break space; more digits for small shares."""
    return f"{100 * share:.{0 if share >= 0.095 or share == 0 else 1}f}\u00a0%"


def prefixed(value: float | None) -> str:
    """Short form for axis ticks: `20k`, `1.5M`, `3G`."""
    if value is None:
        return DASH
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 0.9995 * 10**power:
            return f"{value / 10**power:.3g}{prefix}"
    return f"{value:.3g}"


def unit_for(currency: str, values: Sequence[float | None]) -> tuple[str, float]:
    """`(unit, divisor)` in which a column of one currency reads well; the largest value decides."""
    top = max((abs(v) for v in values if v is not None), default=0.0)
    if currency.endswith("bytes"):
        ladder = [("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("bytes", 1.0)]
    elif currency == "flops":
        ladder = [("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6), ("FLOP", 1.0)]
    elif currency == "seconds":
        ladder = [("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0)]
    else:
        return CURRENCIES.get(currency, currency.replace("_", " ")), 1.0
    return next(((unit, size) for unit, size in ladder if top >= 2 * size), ladder[-1])


def column(currency: str, values: Sequence[float | None]) -> tuple[str, list[str]]:
    """`(header, texts)`: one currency's column in one unit, so that its rows compare at a glance."""
    unit, divisor = unit_for(currency, values)
    whole = divisor == 1 and currency not in ("seconds", "flops")
    texts = [count(v) if whole else significant(None if v is None else v / divisor) for v in values]
    name = CURRENCIES.get(currency, unit)
    return (name if name == unit else unit if name in ("FLOP", "seconds") else f"{name}, {unit}"), texts
