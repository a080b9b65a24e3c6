"""Colours, markers and dashes of the report, and how a chart's colours follow the reader's light or dark theme.

Charts are drawn in sentinel colours (`#0102xx`). `svg.py` replaces them by CSS variables on the page, or by
`FIXED` colours that read on white and on black in a picture that stands alone. The hues are Okabe and Ito's
(safe for colour-blind readers); those too pale on white (below 3:1) are darkened there.
"""

INK, MUTED, LINE, ACCENT = "#010203", "#010204", "#010205", "#010206"

# sentinel: (CSS variable, on light, on dark, alone)
TONES = {
    INK: ("--ink", "#1c2126", "#e4e7ea", "#757d87"),
    MUTED: ("--muted", "#59626c", "#a0a9b3", "#757d87"),
    LINE: ("--line", "#dcdfdb", "#2c3238", "#8b949e59"),
    ACCENT: ("--accent", "#0b5f95", "#74b9ec", "#0072b2"),
}
HUES = (
    ("#0072b2", "#3f9be0", "#2a87c9"),  # blue
    ("#d55e00", "#e8732a", "#d9630a"),  # vermillion
    ("#00805d", "#1fb58a", "#0a9a72"),  # bluish green
    ("#b0588a", "#d98ab7", "#c0709f"),  # reddish purple
    ("#a86f00", "#e69f00", "#bf8400"),  # orange
    ("#2a8cc7", "#8ccbf2", "#3f9ed6"),  # sky blue
    ("#3d444b", "#c3c9cf", "#757d87"),  # grey, for Okabe and Ito's black
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">")
DASHES = ("solid", (0, (5, 1.8)), (0, (1.6, 1.4)), (0, (6, 1.6, 1.4, 1.6)))


def hue(index: int) -> str:
    """The sentinel colour of contestant `index`."""
    return f"#0102{16 + index % len(HUES):02x}"


def marker(index: int) -> str:
    """Its marker: with the hue, unique among the first 70 contestants."""
    return MARKERS[index % len(MARKERS)]


def dash(index: int) -> str | tuple[int, tuple[float, ...]]:
    """Its line style."""
    return DASHES[index % len(DASHES)]


def variables() -> dict[str, str]:
    """Sentinel -> `var(--name)`, for a chart on the page."""
    tones = {sentinel: f"var({tone[0]})" for sentinel, tone in TONES.items()}
    return tones | {hue(i): f"var(--s{i})" for i in range(len(HUES))}


def fixed() -> dict[str, str]:
    """Sentinel -> colour, for a picture that must read on any background."""
    return {sentinel: tone[3] for sentinel, tone in TONES.items()} | {hue(i): h[2] for i, h in enumerate(HUES)}


def declarations(dark: bool) -> str:
    """The CSS declarations of every variable, for one theme."""
    which = int(dark)
    tones = [f"{tone[0]}:{tone[1 + which]}" for tone in TONES.values()]
    return ";".join(tones + [f"--s{i}:{h[which]}" for i, h in enumerate(HUES)])
